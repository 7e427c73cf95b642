/* Checkpoints written: what is read back, and that a folder is old or new, whole, whenever the
 * process that writes it ends. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sys/mount.h>

#include "checkpoint_test.h"
#include "killed_test.h"

static prefopt_context *context;
static char base[PATH_ROOM];
static char folder[PATH_ROOM + 16]; /* base/model */

static void setup(void)
{
    context = test_context(1);
    new_folder(base);
    snprintf(folder, sizeof folder, "%s/model", base);
}

static void teardown(void)
{
    ck_assert_int_eq(chdir("/"), 0);
    remove_all(base);
    prefopt_context_destroy(context);
}

/* Two states of the folder: other values, and with `other_config` another configuration too. */
typedef struct {
    pf_shape *shape[2];
    float *value[2];
} states;

static states make_states(bool other_config)
{
    states s;
    for (int k = 0; k < 2; k++) {
        prefopt_transformer_config config = small_config();
        if (other_config && k == 1) {
            config.vocab = 13;
            config.activation = PREFOPT_GELU_TANH;
        }
        s.shape[k] = make_shape(context, &config, PF_HEAD_LOGITS);
        s.value[k] = make_values(s.shape[k], k);
    }
    return s;
}

static void free_states(states *s)
{
    for (int k = 0; k < 2; k++) {
        pf_shape_release(s->shape[k]);
        free(s->value[k]);
    }
}

static int32_t save(const states *s, int k)
{
    return pf_checkpoint_write(s->shape[k], folder, s->value[k], PREFOPT_F32);
}

/* Which of the two the folder holds; anything else fails. */
static int which(const states *s)
{
    prefopt_transformer_config config;
    int32_t head;
    OK(pf_checkpoint_config(context, folder, &config, &head));
    for (int k = 0; k < 2; k++) {
        if (memcmp(&config, &s->shape[k]->config, sizeof config) != 0)
            continue;
        float *value = read_values(s->shape[k], folder);
        bool same = memcmp(value, s->value[k], (size_t)s->shape[k]->n * sizeof *value) == 0;
        free(value);
        if (same)
            return k;
    }
    ck_abort_msg("the folder holds neither the old nor the new");
    return -1;
}

/* ---------------------------------------------------------------- what is written */

START_TEST(test_round_trip)
{
    for (int k = 0; k < 12; k++) {
        prefopt_transformer_config config = small_config(), got;
        config.tied = k / 3 == 1;
        config.eos = -1;
        int32_t head, dtype = 1 + k % 3;
        pf_shape *shape = make_shape(context, &config, k / 3 == 2 ? PF_HEAD_SCORE : PF_HEAD_LOGITS);
        float *value = make_values(shape, k);
        OK(pf_checkpoint_write(shape, folder, value, dtype));
        OK(pf_checkpoint_config(context, folder, &got, &head));
        ck_assert_mem_eq(&got, &config, sizeof got);
        ck_assert_int_eq(head, shape->head);
        float *back = read_values(shape, folder);
        ck_assert_mem_eq(back, value, (size_t)shape->n * sizeof *value);
        size_t n, again;
        char *bytes = get_file(folder, "model.safetensors", &n);
        ck_assert_uint_eq((unsigned char)bytes[0] % 8, 0); /* the data is aligned */
        ck_assert_ptr_nonnull(memmem(bytes, n, "{\"format\":\"pt\"}", 15));
        /* The same values are the same bytes. */
        OK(pf_checkpoint_write(shape, folder, value, dtype));
        char *twice = get_file(folder, "model.safetensors", &again);
        ck_assert_uint_eq(n, again);
        ck_assert_mem_eq(bytes, twice, n);
        ck_assert_int_eq(count_names(folder), 2);
        ck_assert_int_eq(count_names(base), 1);
        free(bytes);
        free(twice);
        free(back);
        free(value);
        pf_shape_release(shape);
    }
}
END_TEST

START_TEST(test_values)
{
    states s = make_states(false);
    const pf_shape *shape = s.shape[0];
    float *value = s.value[0];
    OK(save(&s, 0));
    FAILS(PREFOPT_ERR_ARGUMENT, "dtype is 0",
          pf_checkpoint_write(shape, folder, value, PREFOPT_F64));
    FAILS(PREFOPT_ERR_ARGUMENT, "dtype is 4", pf_checkpoint_write(shape, folder, value, 4));
    float was = value[shape->norm + 2];
    value[shape->norm + 2] = NAN;
    FAILS(PREFOPT_ERR_NUMERIC, "tensor gpt_neox.final_layer_norm.weight: [2] is nan",
          pf_checkpoint_write(shape, folder, value, PREFOPT_F32));
    value[shape->norm + 2] = 65520;
    FAILS(PREFOPT_ERR_NUMERIC, "[2] is 65520, expected a value finite in F16",
          pf_checkpoint_write(shape, folder, value, PREFOPT_F16));
    value[shape->norm + 2] = 3.4e38F;
    FAILS(PREFOPT_ERR_NUMERIC, "expected a value finite in BF16",
          pf_checkpoint_write(shape, folder, value, PREFOPT_BF16));
    value[shape->norm + 2] = was;
    ck_assert_int_eq(which(&s), 0);
    ck_assert_int_eq(count_names(base), 1);
    value[shape->norm + 2] = nextafterf(65520, 0);
    OK(pf_checkpoint_write(shape, folder, value, PREFOPT_F16));
    float *back = read_values(shape, folder);
    ck_assert(back[shape->norm + 2] == 65504);
    free(back);
    free_states(&s);
}
END_TEST

/* ---------------------------------------------------------------- what else is in the folder */

START_TEST(test_others_stay)
{
    states s = make_states(true);
    struct stat info;
    size_t n;
    for (int inside = 0; inside < 2; inside++) {
        ck_assert_int_eq(mkdir(folder, 0750), 0);
        ck_assert_int_eq(chmod(folder, 0750), 0);
        put_text(folder, "tokenizer.json", "{}");
        put_text(folder, "model.safetensors.index.json", "old");
        put_text(folder, "model-00001-of-00001.safetensors", "old");
        put_text(folder, "model-1-of-1.safetensors", "not a shard's name");
        ck_assert_int_eq(mkdir(path_of(folder, "runs"), 0700), 0);
        put_text(path_of(folder, "runs"), "log", "text");
        ck_assert_int_eq(symlink("../elsewhere", path_of(folder, "link")), 0);
        /* Working in the folder: it keeps its place. */
        ck_assert_int_eq(chdir(inside ? folder : "/"), 0);
        for (int k = 0; k < 4; k++) {
            char *own = inside ? strdup(".") : strdup(folder);
            OK(pf_checkpoint_write(s.shape[k & 1], own, s.value[k & 1], PREFOPT_F32));
            free(own);
            ck_assert_int_eq(which(&s), k & 1);
            if (k == 0) /* one is kept as it is */
                ck_assert_int_eq(chmod(path_of(folder, "model.safetensors"), 0600), 0);
            ck_assert_int_eq(stat(path_of(folder, "model.safetensors"), &info), 0);
            ck_assert_int_eq(info.st_mode & 07777, k == 0 ? info.st_mode & 07777 : 0600);
            ck_assert_int_eq(count_names(base), 1);
            ck_assert_int_eq(count_names(folder), 6);
            ck_assert_int_eq(stat(folder, &info), 0);
            ck_assert_int_eq(info.st_mode & 07777, 0750);
            char *text = get_file(path_of(folder, "runs"), "log", &n);
            ck_assert_str_eq(text, "text");
            free(text);
            char target[32] = "";
            ck_assert_int_eq(readlink(path_of(folder, "link"), target, 31), 12);
            ck_assert_str_eq(target, "../elsewhere");
            ck_assert_int_eq(access("config.json", R_OK) == 0, inside);
        }
        ck_assert_int_eq(chdir("/"), 0);
        remove_all(folder);
    }
    free_states(&s);
}
END_TEST

START_TEST(test_names)
{
    states s = make_states(true);
    char name[PATH_ROOM + 300];
    /* Through a link, with slashes at the end; beside the working folder; of the longest name. */
    OK(save(&s, 0));
    ck_assert_int_eq(symlink("model", path_of(base, "link")), 0);
    snprintf(name, sizeof name, "%s/link///", base);
    OK(pf_checkpoint_write(s.shape[1], name, s.value[1], PREFOPT_F32));
    ck_assert_int_eq(which(&s), 1);
    snprintf(name, sizeof name, "%s/link", base);
    OK(pf_checkpoint_write(s.shape[0], name, s.value[0], PREFOPT_F32));
    ck_assert_int_eq(which(&s), 0);
    struct stat info;
    ck_assert_int_eq(lstat(name, &info), 0);
    ck_assert(S_ISLNK(info.st_mode));
    ck_assert_int_eq(chdir(base), 0);
    OK(pf_checkpoint_write(s.shape[0], "other", s.value[0], PREFOPT_F32));
    OK(pf_checkpoint_write(s.shape[1], "other/", s.value[1], PREFOPT_F32));
    ck_assert_int_eq(count_names("other"), 2);
    memset(name, 'n', 255);
    name[255] = 0;
    OK(pf_checkpoint_write(s.shape[0], name, s.value[0], PREFOPT_F32));
    OK(pf_checkpoint_write(s.shape[1], name, s.value[1], PREFOPT_F32));
    name[255] = 'n';
    name[256] = 0;
    FAILS(PREFOPT_ERR_IO, "too long",
          pf_checkpoint_write(s.shape[0], name, s.value[0], PREFOPT_F32));
    /* Not there, not a folder. */
    FAILS(PREFOPT_ERR_IO, "No such file",
          pf_checkpoint_write(s.shape[0], "none/model", s.value[0], PREFOPT_F32));
    FAILS(PREFOPT_ERR_IO, "No such file",
          pf_checkpoint_write(s.shape[0], "", s.value[0], PREFOPT_F32));
    FAILS(PREFOPT_ERR_IO, "No such file",
          pf_checkpoint_write(s.shape[0], "none/..", s.value[0], PREFOPT_F32));
    put_text(base, "file", "text");
    FAILS(PREFOPT_ERR_IO, "is no folder",
          pf_checkpoint_write(s.shape[0], "file", s.value[0], PREFOPT_F32));
    ck_assert_int_eq(symlink("nowhere", path_of(base, "broken")), 0);
    FAILS(PREFOPT_ERR_IO, "broken",
          pf_checkpoint_write(s.shape[0], "broken", s.value[0], PREFOPT_F32));
    ck_assert_int_eq(count_names(base), 6);
    /* What stands where a file should be is not replaced, and nothing is left. */
    ck_assert_int_eq(mkdir("odd", 0700), 0);
    ck_assert_int_eq(mkdir("odd/model.safetensors", 0700), 0);
    put_text("odd/model.safetensors", "kept", "text");
    ck_assert_int_eq(chdir("odd"), 0);
    FAILS(PREFOPT_ERR_IO, "renaming what was written",
          pf_checkpoint_write(s.shape[0], ".", s.value[0], PREFOPT_F32));
    ck_assert_int_eq(count_names("."), 1);
    free_states(&s);
}
END_TEST

/* ---------------------------------------------------------------- leftovers */

START_TEST(test_leftovers)
{
    states s = make_states(true);
    OK(save(&s, 0));
    const char *dead = path_of(base, "model.0123456789abcdef.prefopt-save");
    const char *dead_inside = path_of(folder, ".00000000000000ff.prefopt-save");
    ck_assert_int_eq(mkdir(dead, 0700), 0);
    put_text(dead, "config.json", "half");
    ck_assert_int_eq(mkdir(dead_inside, 0700), 0);
    put_text(dead_inside, "model.safetensors", "half");
    /* Names that only look like one's own, and a save that is under way. */
    ck_assert_int_eq(mkdir(path_of(base, "model.0123456789abcdeX.prefopt-save"), 0700), 0);
    ck_assert_int_eq(mkdir(path_of(base, "another.0123456789abcdef.prefopt-save"), 0700), 0);
    OK(save(&s, 0));
    ck_assert_int_eq(count_names(base), 3);
    ck_assert_int_eq(count_names(folder), 2);
    free_states(&s);
}
END_TEST

/* ---------------------------------------------------------------- killed */

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

/* ---------------------------------------------------------------- no room */

/* On a file system of one megabyte that is nearly full: the old stays and nothing is left. */
START_TEST(test_disk_full)
{
    states s = make_states(true);
    char filler[300000] = "";
    ck_assert_int_eq(mkdir(path_of(base, "disk"), 0700), 0);
    if (mount("none", path_of(base, "disk"), "tmpfs", 0, "size=1m") != 0) {
        fprintf(stderr, "test_disk_full: left out, mounting is not allowed here\n");
        free_states(&s);
        return;
    }
    /* First a folder on the small disk, then one that is the disk: it cannot change places. */
    for (int root = 0; root < 2; root++) {
        snprintf(folder, sizeof folder, "%s/disk%s", base, root ? "" : "/model");
        OK(save(&s, 0));
        OK(save(&s, 1));
        OK(save(&s, 0));
        ck_assert_int_eq(which(&s), 0);
        for (int i = 0; i < 9; i++) {
            char name[16];
            snprintf(name, sizeof name, "filler%d", i);
            FILE *file = fopen(path_of(path_of(base, "disk"), name), "wb");
            if (file != NULL) {
                fwrite(filler, 1, sizeof filler, file);
                fclose(file);
            }
        }
        int names = count_names(folder);
        for (int k = 0; k < 2; k++)
            FAILS(PREFOPT_ERR_IO, "No space left", save(&s, k));
        ck_assert_int_eq(which(&s), 0);
        ck_assert_int_eq(count_names(folder), names);
        for (int i = 0; i < 9; i++) {
            char name[16];
            snprintf(name, sizeof name, "filler%d", i);
            unlink(path_of(path_of(base, "disk"), name));
        }
        OK(save(&s, 1));
        ck_assert_int_eq(which(&s), 1);
        if (!root)
            remove_all(folder);
    }
    umount(path_of(base, "disk"));
    free_states(&s);
}
END_TEST

START_TEST(test_memory)
{
    counting_allocator allocator = {0};
    prefopt_context *counting = counting_context(&allocator);
    prefopt_context *real = context;
    context = counting;
    states s = make_states(true);
    const int64_t before = allocator.live;
    /* A failure may go unnoticed where the save can do without what it was for. */
    for (int k = 0; k < 4; k++) {
        int64_t failures = 0;
        for (int64_t at = 1;; at++) {
            allocator.fail_at = 0;
            if (k == 0)
                remove_all(folder);
            else
                OK(save(&s, (k - 1) & 1));
            allocator.calls = 0;
            allocator.fail_at = at;
            int32_t status = save(&s, k & 1);
            bool reached = allocator.calls >= at;
            allocator.fail_at = 0;
            ck_assert_int_eq(allocator.live, before);
            if (status != PREFOPT_OK) {
                ck_assert_int_eq(status, PREFOPT_ERR_MEMORY);
                failures++;
            }
            if (k > 0 || status == PREFOPT_OK)
                ck_assert_int_eq(which(&s), status == PREFOPT_OK ? k & 1 : (k - 1) & 1);
            ck_assert_int_eq(count_names(base), k > 0 || status == PREFOPT_OK);
            if (!reached)
                break;
        }
        ck_assert_int_gt(failures, 5);
    }
    free_states(&s);
    context = real;
    prefopt_context_destroy(counting);
}
END_TEST

int main(void)
{
    const TTest *tests[] = {test_round_trip,      test_values,
                            test_others_stay,     test_names,
                            test_leftovers,       test_killed_same_config,
                            test_killed_exchange, test_killed_inside,
                            test_killed_new,      test_killed_at_random,
                            test_disk_full,       test_memory};
    Suite *suite = suite_create("checkpoint_save");
    TCase *tcase = tcase_create("checkpoint_save");
    tcase_set_timeout(tcase, 0);
    tcase_add_checked_fixture(tcase, setup, teardown);
    for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++)
        tcase_add_test(tcase, tests[i]);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
