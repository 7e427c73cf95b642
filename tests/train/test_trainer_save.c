/* Trainers saved: which checkpoints stay, and what the calls say. */
#define _GNU_SOURCE
#include <sys/wait.h>

#include "saved_run.h"
#include "train/pf_saved.h"

START_TEST(test_pruning)
{
    prefopt_context *context = test_context(1);
    one x = one_new(context);
    prefopt_save_options o;
    OK(prefopt_save_options_init(&o, sizeof o));
    ck_assert(o.keep == 0 && o.keep_best == 0);
    char run[PATH_ROOM + 64];
    snprintf(run, sizeof run, "%s/run", base);
    for (int i = 0; i < 5; i++) {
        OK(prefopt_trainer_save(x.trainer, run, NULL));
        OK(prefopt_trainer_run(x.trainer, 1, NULL));
    }
    ck_assert_int_eq(count_names(run), 5);
    /* Others' folders: with a name that only looks like one, without trainer.json, of another run;
     * and what a save that was cut off has left. */
    ck_assert_int_eq(mkdir(at(run, "step-000000001x"), 0700), 0);
    ck_assert_int_eq(mkdir(step_folder(run, 900), 0700), 0);
    ck_assert_int_eq(mkdir(step_folder(run, 901), 0700), 0);
    put_text(step_folder(run, 901), "trainer.json", "{\"format\":\"prefopt-trainer\"}");
    ck_assert_int_eq(mkdir(at(run, ".trainer.0123456789abcdef.prefopt-save"), 0700), 0);
    put_text(run, "notes.txt", "mine");
    prefopt_train_options other_options = x.o;
    prefopt_trainer *other = NULL;
    other_options.learning_rate = 0.25;
    OK(make_dpo(&other, &x.s, x.policy, &other_options));
    OK(prefopt_trainer_run(other, 7, NULL));
    OK(prefopt_trainer_save(other, run, NULL));
    o.keep = 2;
    OK(prefopt_trainer_save(x.trainer, run, &o));
    ck_assert(is_there(run, 5) && is_there(run, 4) && is_there(run, 7));
    ck_assert(!is_there(run, 0) && !is_there(run, 1) && !is_there(run, 2) && !is_there(run, 3));
    ck_assert_int_eq(count_names(run), 7);
    /* What was just written stays, also where it is not among the newest. */
    OK(prefopt_trainer_restore(x.trainer, step_folder(run, 4)));
    remove_all(step_folder(run, 4));
    OK(prefopt_trainer_save(x.trainer, at(base, "four"), NULL));
    o.keep = 1;
    OK(prefopt_trainer_save(x.trainer, run, &o));
    ck_assert(is_there(run, 4) && is_there(run, 5) && is_there(run, 7));
    /* The same again is nothing to write. */
    struct stat before, after;
    ck_assert_int_eq(stat(step_folder(run, 4), &before), 0);
    OK(prefopt_trainer_save(x.trainer, run, &o));
    ck_assert_int_eq(stat(step_folder(run, 4), &after), 0);
    ck_assert(before.st_ino == after.st_ino);
    /* Another state of the same step takes its place. */
    prefopt_parameters p = parameters_of(x.policy);
    ((double *)p.value)[0] += 1;
    OK(prefopt_trainer_save(x.trainer, run, &o));
    ck_assert_int_eq(stat(step_folder(run, 4), &after), 0);
    ck_assert(before.st_ino != after.st_ino);
    same_file(step_folder(run, 4), step_folder(at(base, "four"), 4), "config.json");
    double moved = ((double *)p.value)[0];
    ((double *)p.value)[0] = 0;
    OK(prefopt_trainer_restore(x.trainer, step_folder(run, 4)));
    ck_assert(((double *)p.value)[0] == moved);
    /* Another run's, or nobody's, is not replaced. */
    OK(prefopt_trainer_run(x.trainer, 3, NULL));
    FAILS(PREFOPT_ERR_STATE, "step-000000007: is there already, and is a checkpoint of another run",
          prefopt_trainer_save(x.trainer, run, NULL));
    ck_assert_int_eq(mkdir(step_folder(run, 8), 0700), 0);
    OK(prefopt_trainer_run(x.trainer, 1, NULL));
    FAILS(PREFOPT_ERR_STATE, "step-000000008: is there already, and is no checkpoint",
          prefopt_trainer_save(x.trainer, run, NULL));
    prefopt_trainer_destroy(other);
    one_free(&x);
    prefopt_context_destroy(context);
}
END_TEST

static void change(const char *folder, const char *name)
{
    size_t n = 0;
    char *bytes = get_file(folder, name, &n);
    ck_assert_msg(bytes != NULL && n > 0, "%s/%s", folder, name);
    bytes[n - 2] ^= 1;
    put_file(folder, name, bytes, n);
    free(bytes);
}

/* The same again is nothing to write, but a damaged file is written anew: the step's folder takes
 * the place of the damaged one. */
static void same_again(prefopt_trainer *trainer, const char *const files[])
{
    struct stat before, after;
    int64_t step = 0;
    OK(prefopt_trainer_step(trainer, &step));
    OK(prefopt_trainer_save(trainer, at(base, "good"), NULL));
    OK(prefopt_trainer_save(trainer, at(base, "run"), NULL));
    char folder[PATH_ROOM + 64], good[PATH_ROOM + 64];
    snprintf(folder, sizeof folder, "%s", step_folder(at(base, "run"), step));
    snprintf(good, sizeof good, "%s", step_folder(at(base, "good"), step));
    ck_assert_int_eq(stat(folder, &before), 0);
    OK(prefopt_trainer_save(trainer, at(base, "run"), NULL));
    ck_assert_int_eq(stat(folder, &after), 0);
    ck_assert(before.st_ino == after.st_ino);
    for (int i = 0; files[i] != NULL; i++)
        for (int gone = 0; gone < 2; gone++) {
            if (gone)
                ck_assert_int_eq(remove(at(folder, files[i])), 0);
            else
                change(folder, files[i]);
            OK(prefopt_trainer_save(trainer, at(base, "run"), NULL));
            same_checkpoint(folder, good);
            same_file(folder, good, files[i]);
            OK(prefopt_trainer_restore(trainer, at(base, "run")));
            ck_assert_int_eq(count_names(at(base, "run")), 1);
        }
    remove_all(at(base, "run"));
    remove_all(at(base, "good"));
}

START_TEST(test_same_again)
{
    prefopt_context *context = test_context(1);
    one x = one_new(context);
    OK(prefopt_trainer_run(x.trainer, 2, NULL));
    same_again(x.trainer, (const char *const[]){"optimiser.safetensors", NULL});
    prefopt_policy *policy = small_policy(context, 5);
    prefopt_dataset *data = small_pairs(context);
    prefopt_dpo_options dpo = dpo_of(PREFOPT_DPO_SIMPO);
    prefopt_trainer *trainer = NULL;
    OK(prefopt_trainer_create_dpo(&trainer, policy, NULL, data, &dpo, NULL));
    OK(prefopt_trainer_run(trainer, 1, NULL));
    same_again(trainer, (const char *const[]){"model.safetensors", "config.json", NULL});
    prefopt_trainer_destroy(trainer);
    prefopt_policy_destroy(policy);
    prefopt_dataset_destroy(data);
    OK(make_rounds(&trainer, &x.s, x.policy, &x.o));
    OK(prefopt_trainer_run(trainer, 1, NULL)); /* in the middle of a round */
    same_again(trainer, (const char *const[]){"online_dpo.round.jsonl", NULL});
    prefopt_trainer_destroy(trainer);
    one_free(&x);
    prefopt_context_destroy(context);
}
END_TEST

/* Links and files where folders are looked for: what a link points to is never removed. */
START_TEST(test_links_and_files)
{
    prefopt_context *context = test_context(1);
    one x = one_new(context);
    prefopt_save_options o;
    OK(prefopt_save_options_init(&o, sizeof o));
    o.keep = 1;
    int64_t step = 0;
    char run[PATH_ROOM + 64], link[PATH_ROOM + 64], old[PATH_ROOM + 64];
    snprintf(run, sizeof run, "%s/run", base);
    snprintf(link, sizeof link, "%s/link", base);
    snprintf(old, sizeof old, "%s/old", base);
    /* The directory is a link; one of the steps has moved to another place. */
    ck_assert_int_eq(mkdir(run, 0700), 0);
    ck_assert_int_eq(symlink("run", link), 0);
    OK(prefopt_trainer_save(x.trainer, link, &o));
    ck_assert_int_eq(rename(step_folder(run, 0), old), 0);
    ck_assert_int_eq(symlink(old, step_folder(run, 0)), 0);
    OK(prefopt_trainer_restore(x.trainer, link));
    FAILS(PREFOPT_ERR_STATE, "step-000000000: is there already, and is no checkpoint",
          prefopt_trainer_save(x.trainer, run, NULL));
    for (int i = 0; i < 3; i++) {
        OK(prefopt_trainer_run(x.trainer, 1, NULL));
        OK(prefopt_trainer_save(x.trainer, link, &o));
    }
    ck_assert_int_eq(count_names(run), 2);
    ck_assert(is_there(run, 0) && is_there(run, 3));
    ck_assert_int_eq(count_names(old), 2);
    /* A link that a save did not leave, under the name of what one leaves. */
    ck_assert_int_eq(symlink(old, at(run, ".trainer.0123456789abcdef.prefopt-save")), 0);
    /* A file is no checkpoint, and is not replaced by one; nor is a link to nowhere. */
    put_text(run, "step-000000004", "mine");
    ck_assert_int_eq(symlink("nowhere", step_folder(run, 5)), 0);
    OK(prefopt_checkpoint_latest(run, &step, NULL, 0, NULL));
    ck_assert_int_eq(step, 3);
    for (int i = 4; i <= 5; i++) {
        OK(prefopt_trainer_run(x.trainer, 1, NULL));
        FAILS(PREFOPT_ERR_STATE, "is there already, and is no checkpoint",
              prefopt_trainer_save(x.trainer, run, &o));
    }
    ck_assert_int_eq(count_names(old), 2);
    OK(prefopt_trainer_run(x.trainer, 1, NULL));
    OK(prefopt_trainer_save(x.trainer, run, &o));
    ck_assert(is_there(run, 6) && !is_there(run, 3) && access(step_folder(run, 4), F_OK) == 0);
    ck_assert_int_eq(count_names(old), 2);
    /* The directory is a link to nowhere. */
    ck_assert_int_eq(unlink(link), 0);
    ck_assert_int_eq(symlink("nowhere", link), 0);
    FAILS(PREFOPT_ERR_IO, "link: looking at the folder failed: No such file",
          prefopt_trainer_save(x.trainer, link, NULL));
    one_free(&x);
    prefopt_context_destroy(context);
}
END_TEST

/* Steps of more than nine digits, and names that are none's. */
START_TEST(test_large_steps)
{
    static const struct {
        const char *name;
        int64_t step;
    } names[] = {{"step-000000000", 0},
                 {"step-1000000000", 1000000000},
                 {"step-9223372036854775807", INT64_MAX},
                 {"step-9223372036854775808", -1},
                 {"step-0000000001", -1},
                 {"step-00000001", -1},
                 {"step--00000001", -1},
                 {"step-+00000001", -1},
                 {"step- 00000001", -1},
                 {"step-", -1},
                 {"step-00000000000000000000000000000000000000000000000000001", -1},
                 {"Step-000000001", -1}};
    int64_t newest = -1, step = 0;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        ck_assert_msg(pf_step_of(names[i].name) == names[i].step, "%s", names[i].name);
        ck_assert_int_eq(mkdir(at(base, names[i].name), 0700), 0);
        put_text(at(base, names[i].name), "trainer.json", "{}");
        newest = names[i].step > newest ? names[i].step : newest;
        OK(prefopt_checkpoint_latest(base, &step, NULL, 0, NULL));
        ck_assert_int_eq(step, newest);
    }
}
END_TEST

/* Two processes that save the same run to one directory at a time: not as the header asks for, but
 * what is there afterwards is whole. */
START_TEST(test_two_processes)
{
    prefopt_context *context = test_context(1);
    one x = one_new(context);
    prefopt_save_options o;
    OK(prefopt_save_options_init(&o, sizeof o));
    o.keep = 1;
    pid_t child[2];
    for (int k = 0; k < 2; k++) {
        child[k] = fork();
        ck_assert_int_ge(child[k], 0);
        for (int i = 0; child[k] == 0; i++) {
            if (i == 30)
                _exit(0);
            if (prefopt_trainer_run(x.trainer, 1, NULL) != PREFOPT_OK)
                _exit(1);
            int32_t status = prefopt_trainer_save(x.trainer, base, &o);
            /* The other was first, or has removed it meanwhile. */
            if (status != PREFOPT_OK && status != PREFOPT_ERR_IO && status != PREFOPT_ERR_STATE)
                _exit(2);
        }
    }
    for (int k = 0; k < 2; k++) {
        int status;
        ck_assert_int_eq(waitpid(child[k], &status, 0), child[k]);
        ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%x", (unsigned)status);
    }
    int64_t step = 0;
    OK(prefopt_trainer_restore(x.trainer, base));
    OK(prefopt_trainer_step(x.trainer, &step));
    ck_assert_int_eq(step, 30);
    OK(prefopt_trainer_run(x.trainer, 1, NULL));
    OK(prefopt_trainer_save(x.trainer, base, &o));
    ck_assert_int_eq(count_names(base), 1);
    one_free(&x);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(test_latest)
{
    prefopt_context *context = test_context(1);
    one x = one_new(context);
    char run[PATH_ROOM + 64], path[PATH_ROOM + 64];
    snprintf(run, sizeof run, "%s/run", base);
    int64_t step = 9, n = 0;
    OK(prefopt_checkpoint_latest(run, &step, path, sizeof path, &n));
    ck_assert(step == -1 && path[0] == 0 && n == 1);
    OK(prefopt_trainer_save(x.trainer, run, NULL));
    OK(prefopt_checkpoint_latest(run, &step, NULL, 0, &n));
    ck_assert(step == 0 && n == (int64_t)strlen(step_folder(run, 0)) + 1);
    OK(prefopt_trainer_run(x.trainer, 12, NULL));
    OK(prefopt_trainer_save(x.trainer, run, NULL));
    OK(prefopt_checkpoint_latest(run, &step, path, n, NULL));
    ck_assert(step == 12);
    ck_assert_str_eq(path, step_folder(run, 12));
    step = 5;
    FAILS(PREFOPT_ERR_ARGUMENT, "capacity is",
          prefopt_checkpoint_latest(run, &step, path, n - 1, &n));
    FAILS(PREFOPT_ERR_ARGUMENT, "capacity is -1",
          prefopt_checkpoint_latest(run, &step, path, -1, &n));
    FAILS(PREFOPT_ERR_ARGUMENT, "path is NULL", prefopt_checkpoint_latest(run, &step, NULL, 9, &n));
    FAILS(PREFOPT_ERR_ARGUMENT, "step is NULL", prefopt_checkpoint_latest(run, NULL, NULL, 0, &n));
    FAILS(PREFOPT_ERR_ARGUMENT, "directory is NULL",
          prefopt_checkpoint_latest(NULL, &step, NULL, 0, &n));
    put_text(base, "file", "text");
    FAILS(PREFOPT_ERR_IO, "file: opening the folder failed",
          prefopt_checkpoint_latest(at(base, "file"), &step, NULL, 0, NULL));
    ck_assert(step == 5);
    one_free(&x);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(test_arguments)
{
    prefopt_context *context = test_context(1);
    one x = one_new(context);
    prefopt_save_options o;
    OK(prefopt_save_options_init(&o, sizeof o));
    FAILS(PREFOPT_ERR_ARGUMENT, "trainer is NULL", prefopt_trainer_save(NULL, base, &o));
    FAILS(PREFOPT_ERR_ARGUMENT, "directory is NULL", prefopt_trainer_save(x.trainer, NULL, &o));
    FAILS(PREFOPT_ERR_ARGUMENT, "trainer is NULL", prefopt_trainer_restore(NULL, base));
    FAILS(PREFOPT_ERR_ARGUMENT, "directory is NULL", prefopt_trainer_restore(x.trainer, NULL));
    o.keep = -1;
    FAILS(PREFOPT_ERR_ARGUMENT, "keep is -1", prefopt_trainer_save(x.trainer, base, &o));
    o.keep = 0;
    o.keep_best = 1;
    FAILS(PREFOPT_ERR_ARGUMENT, "keep_best is 1, but the trainer has no evaluation",
          prefopt_trainer_save(x.trainer, base, &o));
    o.keep_best = 0;
    o.struct_size = 8;
    FAILS(PREFOPT_ERR_VERSION, "prefopt_save_options", prefopt_trainer_save(x.trainer, base, &o));
    put_text(base, "file", "text");
    FAILS(PREFOPT_ERR_IO, "file: is no folder",
          prefopt_trainer_save(x.trainer, at(base, "file"), NULL));
    FAILS(PREFOPT_ERR_IO,
          "dpo: saving step 0: ", prefopt_trainer_save(x.trainer, at(base, "none/run"), NULL));
    FAILS(PREFOPT_ERR_IO, "No such file", prefopt_trainer_save(x.trainer, "", NULL));
    ck_assert_int_eq(count_names(base), 1);
    one_free(&x);
    prefopt_context_destroy(context);
}
END_TEST

/* Whichever allocation fails: an error, nothing left, and the next call works. */
START_TEST(test_no_memory)
{
    counting_allocator allocator = {0};
    prefopt_context *context = counting_context(&allocator);
    one x = one_new(context);
    prefopt_save_options o;
    OK(prefopt_save_options_init(&o, sizeof o));
    o.keep = 1;
    OK(prefopt_trainer_save(x.trainer, base, NULL));
    OK(prefopt_trainer_run(x.trainer, 2, NULL));
    int64_t live = allocator.live;
    int32_t status = PREFOPT_ERR_MEMORY;
    int n = 0;
    for (; status == PREFOPT_ERR_MEMORY; n++) {
        allocator.calls = 0;
        allocator.fail_at = n + 1;
        status = prefopt_trainer_save(x.trainer, base, &o);
        allocator.fail_at = 0;
        ck_assert_int_eq(allocator.live, live);
        ck_assert_int_eq(count_names(base), 1 + (status == PREFOPT_OK));
    }
    /* Pruning for which there is no memory is left to the next save. */
    OK(status);
    ck_assert_int_gt(n, 8);
    OK(prefopt_trainer_save(x.trainer, base, &o));
    ck_assert_int_eq(count_names(base), 1);
    /* The same step again, which is looked into. */
    status = PREFOPT_ERR_MEMORY;
    for (n = 0; status == PREFOPT_ERR_MEMORY; n++) {
        allocator.calls = 0;
        allocator.fail_at = n + 1;
        status = prefopt_trainer_save(x.trainer, base, NULL);
        allocator.fail_at = 0;
        ck_assert_int_eq(allocator.live, live);
        ck_assert_int_eq(count_names(base), 1);
    }
    OK(status);
    ck_assert_int_gt(n, 4);
    OK(prefopt_trainer_run(x.trainer, 2, NULL));
    status = PREFOPT_ERR_MEMORY;
    for (n = 0; status == PREFOPT_ERR_MEMORY; n++) {
        int64_t step = 0;
        OK(prefopt_trainer_step(x.trainer, &step));
        ck_assert_int_eq(step, 4);
        allocator.calls = 0;
        allocator.fail_at = n + 1;
        status = prefopt_trainer_restore(x.trainer, base);
        allocator.fail_at = 0;
        ck_assert_int_eq(allocator.live, live);
    }
    OK(status);
    ck_assert_int_gt(n, 6);
    one_free(&x);
    prefopt_context_destroy(context);
    ck_assert_int_eq(allocator.live, 0);
}
END_TEST

TEST_MAIN_IN(new_base, remove_base, "trainer_save", test_pruning, test_same_again,
             test_links_and_files, test_large_steps, test_two_processes, test_latest,
             test_arguments, test_no_memory)
