#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/pf_file.h"
#include "pf_test.h"

static prefopt_context *context;
static char folder[64], target[128];

static void set_up(void)
{
    context = test_context(1);
    strcpy(folder, "prefopt-test-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(target, sizeof target, "%s/file", folder);
}

/* How many names the folder has. */
static int names(const char *path)
{
    DIR *dir = opendir(path);
    ck_assert_ptr_nonnull(dir);
    int n = 0;
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;)
        n += entry->d_name[0] != '.';
    closedir(dir);
    return n;
}

static void tear_down(void)
{
    unlink(target);
    ck_assert_int_eq(rmdir(folder), 0); /* nothing else was left */
    prefopt_context_destroy(context);
}

static int32_t write_text(const char *path, const char *text)
{
    pf_file *file = NULL;
    int32_t status = pf_file_create(&file, context, path);
    if (status != PREFOPT_OK)
        return status;
    pf_file_put(file, text, (int64_t)strlen(text));
    return pf_file_commit(file);
}

static void check_text(const char *path, const char *text)
{
    char content[64] = {0};
    FILE *file = fopen(path, "rb");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_lt(fread(content, 1, sizeof content - 1, file), sizeof content);
    fclose(file);
    ck_assert_str_eq(content, text);
}

START_TEST(appears_whole)
{
    set_up();
    OK(write_text(target, "one"));
    check_text(target, "one");
    ck_assert_int_eq(chmod(target, 0640), 0);
    pf_file *file = NULL;
    OK(pf_file_create(&file, context, target));
    OK(pf_file_put(file, "two", 3));
    check_text(target, "one"); /* not before the commit */
    ck_assert_int_eq(names(folder), 2);
    OK(pf_file_commit(file));
    check_text(target, "two");
    struct stat info;
    ck_assert_int_eq(stat(target, &info), 0);
    ck_assert_int_eq(info.st_mode & 07777, 0640);
    OK(pf_file_create(&file, context, target));
    OK(pf_file_put(file, "three", 5));
    pf_file_abandon(file);
    pf_file_abandon(NULL);
    check_text(target, "two");
    OK(write_text(target, ""));
    check_text(target, "");
    tear_down();
}
END_TEST

START_TEST(many_bytes)
{
    set_up();
    enum { N = 200000 };
    static char bytes[N], back[2 * N + 1];
    for (int i = 0; i < N; i++)
        bytes[i] = (char)(i * 7 % 251);
    pf_file *file = NULL;
    OK(pf_file_create(&file, context, target));
    for (int64_t i = 0, n = 1; i < N; i += n, n = n % 977 + 1) /* around the buffer's end */
        OK(pf_file_put(file, bytes + i, n < N - i ? n : N - i));
    OK(pf_file_put(file, bytes, N)); /* larger than the buffer */
    OK(pf_file_commit(file));
    FILE *in = fopen(target, "rb");
    ck_assert_uint_eq(fread(back, 1, sizeof back, in), 2 * N);
    fclose(in);
    ck_assert_mem_eq(back, bytes, N);
    ck_assert_mem_eq(back + N, bytes, N);
    tear_down();
}
END_TEST

/* How many of the file's bytes the system keeps in memory. */
static int64_t cached(const char *path, int64_t n)
{
    enum { PAGE = 4096 };
    int file = open(path, O_RDONLY | O_CLOEXEC);
    unsigned char *held = malloc((size_t)(n / PAGE + 1));
    void *map = mmap(NULL, (size_t)n, PROT_READ, MAP_SHARED, file, 0);
    int64_t kept = 0;
    ck_assert(map != MAP_FAILED && held != NULL);
    ck_assert_int_eq(mincore(map, (size_t)n, held), 0);
    for (int64_t i = 0; i < (n + PAGE - 1) / PAGE; i++)
        kept += (held[i] & 1) * PAGE;
    munmap(map, (size_t)n);
    free(held);
    close(file);
    return kept;
}

/* Goes through the cache, and is the same: 100 MB in pieces of every kind. */
START_TEST(passes_through)
{
    set_up();
    enum { N = 9999991, PIECES = 10, KEPT = (64 + 8) << 20 };
    const int64_t whole = (int64_t)N * PIECES + 3;
    unsigned char *bytes = malloc(N), *back = malloc(N);
    ck_assert(bytes != NULL && back != NULL);
    for (int64_t i = 0; i < N; i++)
        bytes[i] = (unsigned char)(i * 7 % 251);
    pf_file *file = NULL;
    OK(pf_file_create(&file, context, target));
    pf_file_pass(file);
    OK(pf_file_put(file, "abc", 3));
    for (int i = 0; i < PIECES; i++) {
        bytes[0] = (unsigned char)i;
        if (i % 3 != 0)
            OK(pf_file_put(file, bytes, N));
        for (int64_t at = 0; i % 3 == 0 && at < N; at += 50000)
            OK(pf_file_put(file, bytes + at, N - at < 50000 ? N - at : 50000));
    }
    OK(pf_file_commit(file));
    struct statfs disk;
    ck_assert_int_eq(statfs(target, &disk), 0);
    if (disk.f_type == 0xef53) /* ext4 */
        ck_assert_int_le(cached(target, whole), KEPT);
    FILE *in = fopen(target, "rb");
    ck_assert_uint_eq(fread(back, 1, 3, in), 3);
    ck_assert_mem_eq(back, "abc", 3);
    for (int i = 0; i < PIECES; i++) {
        bytes[0] = (unsigned char)i;
        ck_assert_uint_eq(fread(back, 1, N, in), N);
        ck_assert(memcmp(back, bytes, N) == 0);
    }
    ck_assert_int_eq(fgetc(in), EOF);
    fclose(in);
    free(bytes);
    free(back);
    tear_down();
}
END_TEST

START_TEST(follows_links)
{
    set_up();
    char link[128];
    snprintf(link, sizeof link, "%s/link", folder);
    OK(write_text(target, "one"));
    ck_assert_int_eq(symlink("file", link), 0);
    OK(write_text(link, "two"));
    check_text(target, "two");
    struct stat info;
    ck_assert_int_eq(lstat(link, &info), 0);
    ck_assert(S_ISLNK(info.st_mode));
    unlink(target);
    FAILS(PREFOPT_ERR_IO, "following the link", write_text(link, "three"));
    unlink(link);
    tear_down();
}
END_TEST

START_TEST(refuses_what_is_no_file)
{
    set_up();
    FAILS(PREFOPT_ERR_IO, "/dev/full: is no regular file", write_text("/dev/full", "x"));
    FAILS(PREFOPT_ERR_IO, "is no regular file", write_text(folder, "x"));
    FAILS(PREFOPT_ERR_IO, "No such file", write_text("/no/such/folder/file", "x"));
    FAILS(PREFOPT_ERR_IO, "", write_text("", "x"));
    FAILS(PREFOPT_ERR_IO, "", write_text("/proc/self/file", "x"));
    OK(write_text(target, "one"));
    char below[160];
    snprintf(below, sizeof below, "%s/below", target);
    FAILS(PREFOPT_ERR_IO, "Not a directory", write_text(below, "x"));
    if (geteuid() != 0) {
        ck_assert_int_eq(chmod(folder, 0555), 0);
        FAILS(PREFOPT_ERR_IO, "Permission denied", write_text(target, "two"));
        ck_assert_int_eq(chmod(folder, 0755), 0);
    }
    check_text(target, "one");
    tear_down();
}
END_TEST

/* 200,000 bytes do not fit where `path` is; what was there stays. */
static void write_too_much(const char *path, bool pass, const char *why)
{
    pf_file *file = NULL;
    static const char block[1000];
    OK(pf_file_create(&file, context, path));
    if (pass)
        pf_file_pass(file);
    int32_t status = PREFOPT_OK;
    for (int i = 0; i < 200; i++)
        status = pf_file_put(file, block, sizeof block);
    ck_assert_int_eq(status, PREFOPT_ERR_IO);
    FAILS(PREFOPT_ERR_IO, why, pf_file_commit(file));
    check_text(path, "one");
}

START_TEST(a_file_that_may_not_grow)
{
    set_up();
    OK(write_text(target, "one"));
    struct rlimit before, limit;
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &before), 0);
    limit = before;
    limit.rlim_cur = 100000;
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    write_too_much(target, false, "File too large");
    write_too_much(target, true, "File too large");
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &before), 0);
    signal(SIGXFSZ, handler);
    ck_assert_int_eq(names(folder), 1);
    tear_down();
}
END_TEST

/* Needs the right to mount; where that is missing the test above stands for it. */
START_TEST(a_full_disk)
{
    set_up();
    if (mount("none", folder, "tmpfs", 0, "size=65536") == 0) {
        OK(write_text(target, "one"));
        write_too_much(target, false, "No space left");
        write_too_much(target, true, "No space left");
        ck_assert_int_eq(names(folder), 1);
        ck_assert_int_eq(umount(folder), 0);
    }
    tear_down();
}
END_TEST

START_TEST(without_memory)
{
    set_up();
    counting_allocator a = {0};
    prefopt_context *counting = counting_context(&a);
    pf_file *file = NULL;
    int64_t live = a.live, failures = 0;
    for (a.calls = 0, a.fail_at = 1;; a.calls = 0, a.fail_at++) {
        int32_t status = pf_file_create(&file, counting, target);
        if (status == PREFOPT_OK)
            break;
        failures++;
        ck_assert_int_eq(status, PREFOPT_ERR_MEMORY);
        ck_assert_int_eq(a.live, live);
        ck_assert_ptr_null(file);
        ck_assert_int_eq(names(folder), 0);
    }
    ck_assert_int_eq(failures, 3);
    pf_file_abandon(file);
    prefopt_context_destroy(counting);
    ck_assert_int_eq(a.live, 0);
    tear_down();
}
END_TEST

TEST_MAIN("file", appears_whole, many_bytes, passes_through, follows_links, refuses_what_is_no_file,
          a_file_that_may_not_grow, a_full_disk, without_memory)
