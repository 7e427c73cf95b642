/* A folder of a checkpoint is old or new, whole, whenever the process that writes it ends. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>

#include "checkpoint_states.h"
#include "killed_test.h"

typedef struct {
    const states *s;
    int k;
} one_save;

static int32_t save_one(void *payload)
{
    const one_save *w = payload;
    return save(w->s, w->k);
}

typedef struct {
    const states *s;
    int seen[2], last;
} looks;

/* What a kill here would leave: one of the two, and after the new one never again the old. */
static void look(void *payload)
{
    looks *l = payload;
    int now = which(l->s);
    l->seen[now]++;
    ck_assert_int_ge(now, l->last);
    l->last = now;
}

/* A save looked at around each of its system calls, and killed at many of them: the next save
 * leaves nothing of what was cut off. */
static void kill_everywhere(bool other_config, bool inside)
{
    enum { STRIDE = 13 };
    states s = make_states(other_config);
    looks l = {.s = &s};
    if (inside)
        ck_assert_int_eq(mkdir(folder, 0700), 0);
    ck_assert_int_eq(chdir(inside ? folder : "/"), 0);
    OK(save(&s, 0));
    ck_assert(killed_at(save_one, &(one_save){&s, 1}, 1000000, look, &l));
    ck_assert_int_eq(which(&s), 1);
    if (l.seen[0] + l.seen[1] > 0)
        ck_assert_msg(l.seen[0] > 20 && l.seen[1] > 6, "%d old, %d new", l.seen[0], l.seen[1]);
    int n = 1;
    for (bool ended = false; !ended; n += STRIDE) {
        OK(save(&s, 0));
        ck_assert_int_eq(count_names(base), 1);
        ck_assert_int_eq(count_names(folder), 2);
        ended = killed_at(save_one, &(one_save){&s, 1}, n, NULL, NULL);
        which(&s);
    }
    free_states(&s);
}

START_TEST(test_killed_same_config) { kill_everywhere(false, false); }
END_TEST

START_TEST(test_killed_exchange) { kill_everywhere(true, false); }
END_TEST

START_TEST(test_killed_inside) { kill_everywhere(true, true); }
END_TEST

/* There is no folder, or the whole one. */
static void look_new(void *payload)
{
    looks *l = payload;
    if (access(folder, F_OK) != 0) {
        ck_assert_int_eq(l->last, 0);
        l->seen[0]++;
        return;
    }
    ck_assert_int_eq(which(l->s), 1);
    ck_assert_int_eq(count_names(folder), 2);
    l->last = 1;
    l->seen[1]++;
}

START_TEST(test_killed_new)
{
    enum { STRIDE = 13 };
    states s = make_states(false);
    looks l = {.s = &s};
    ck_assert(killed_at(save_one, &(one_save){&s, 1}, 1000000, look_new, &l));
    ck_assert_int_eq(which(&s), 1);
    if (l.seen[0] + l.seen[1] > 0)
        ck_assert_msg(l.seen[0] > 20 && l.seen[1] > 0, "%d none, %d new", l.seen[0], l.seen[1]);
    for (int n = 1;; n += STRIDE) {
        remove_all(folder);
        if (killed_at(save_one, &(one_save){&s, 1}, n, NULL, NULL))
            break;
    }
    ck_assert_int_eq(which(&s), 1);
    ck_assert_int_eq(count_names(base), 1);
    free_states(&s);
}
END_TEST

/* The same at random times, while one save follows another. */
START_TEST(test_killed_at_random)
{
    enum { KILLS = 20 };
    states s = make_states(true);
    int seen[2] = {0, 0};
    OK(save(&s, 0));
    for (uint64_t i = 0; i < KILLS; i++) {
        double draw;
        OK(prefopt_random_uniform(1, 0, i, 1, &draw));
        int ready[2];
        ck_assert_int_eq(pipe(ready), 0);
        pid_t child = fork();
        ck_assert_int_ge(child, 0);
        if (child == 0) {
            for (int k = (int)i;; k++)
                if (save(&s, k & 1) != PREFOPT_OK || (k == (int)i && write(ready[1], "", 1) != 1))
                    _exit(1);
        }
        /* From its first save on. */
        char byte;
        close(ready[1]);
        ck_assert_int_eq(read(ready[0], &byte, 1), 1);
        close(ready[0]);
        usleep((useconds_t)(draw * 20000));
        kill(child, SIGKILL);
        int status;
        ck_assert_int_eq(waitpid(child, &status, 0), child);
        ck_assert(WIFSIGNALED(status));
        seen[which(&s)]++;
    }
    ck_assert_msg(seen[0] > 0 && seen[1] > 0, "%d, %d", seen[0], seen[1]);
    free_states(&s);
}
END_TEST

TEST_MAIN_IN(setup, teardown, "checkpoint_killed", test_killed_same_config, test_killed_exchange,
             test_killed_inside, test_killed_new, test_killed_at_random)
