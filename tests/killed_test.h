/* Killing a child at a chosen system call. Define _GNU_SOURCE before it. */
#ifndef KILLED_TEST_H
#define KILLED_TEST_H

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pf_test.h"

/* Runs call(payload) in a child up to its n-th entry to or return from a system call, with
 * look(seen) at each, and kills it there. True: it ended before. Where tracing is not allowed the
 * call is made without. */
static inline bool killed_at(int32_t (*call)(void *payload), void *payload, int n,
                             void (*look)(void *seen), void *seen)
{
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
            _exit(99);
        raise(SIGSTOP);
        _exit(call(payload) == PREFOPT_OK ? 0 : 1);
    }
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 99) {
        fprintf(stderr, "killed_at: left out, tracing is not allowed here\n");
        OK(call(payload));
        return true;
    }
    ck_assert(WIFSTOPPED(status));
    for (int i = 0; i < n; i++) {
        ck_assert_int_eq(ptrace(PTRACE_SYSCALL, child, NULL, NULL), 0);
        ck_assert_int_eq(waitpid(child, &status, 0), child);
        if (WIFEXITED(status)) {
            ck_assert_int_eq(WEXITSTATUS(status), 0);
            return true;
        }
        if (look != NULL)
            look(seen);
    }
    kill(child, SIGKILL);
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    return false;
}

#endif
