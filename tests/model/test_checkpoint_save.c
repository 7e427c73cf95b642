/* Checkpoints written: what is read back, what else is in the folder, a disk that is full, memory
 * that ends. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sys/mount.h>

#include "checkpoint_states.h"

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

TEST_MAIN_IN(setup, teardown, "checkpoint_save", test_round_trip, test_values, test_others_stay,
             test_names, test_leftovers, test_disk_full, test_memory)
