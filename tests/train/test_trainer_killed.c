/* Runs that are killed: at random moments, at each system call of a save, and by a full disk. */
#define _GNU_SOURCE
#include <errno.h>
#include <malloc.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <time.h>

#include "killed_test.h"
#include "saved_run.h"
#include "train/pf_saved.h"

/* ---------------------------------------------------------------- at random moments */

/* A run of N steps that saves every second one from the progress callback and goes on from the
 * newest checkpoint. What it does with other models than a transformer is in test_trainer_resumed.
 */
enum { STEPS = 16, EVERY = 2 };

/* What a child tells its parent while it lives: steps done since it started, and when (seconds) the
 * first and the newest were. */
typedef struct {
    _Atomic int64_t steps;
    double first, newest;
} heard;

typedef struct {
    const char *directory;
    prefopt_trainer *trainer;
    heard *heard;
} saving;

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int32_t on_progress(void *payload, const prefopt_progress *progress)
{
    saving *s = payload;
    prefopt_save_options o;
    int64_t step = 0;
    (void)progress;
    if (prefopt_save_options_init(&o, sizeof o) != PREFOPT_OK ||
        prefopt_trainer_step(s->trainer, &step) != PREFOPT_OK)
        return 1;
    o.keep = 2;
    s->heard->newest = seconds();
    if (s->heard->steps == 0)
        s->heard->first = s->heard->newest;
    s->heard->steps++;
    return step % EVERY == 0 && prefopt_trainer_save(s->trainer, s->directory, &o) != PREFOPT_OK;
}

/* Of the tokens, for want of anything better to like. */
static int32_t like(void *payload, const prefopt_sequences *in, double *score)
{
    (void)payload;
    for (int64_t i = 0; i < in->n; i++) {
        score[i] = 0;
        for (int64_t t = in->offsets[i]; t < in->offsets[i + 1]; t++)
            score[i] += (in->tokens[t] * 7 + t - in->offsets[i]) % 5;
    }
    return PREFOPT_OK;
}

typedef int32_t begin_fn(prefopt_trainer **out, prefopt_context *context,
                         const prefopt_train_options *o);

static int32_t begin_dpo(prefopt_trainer **out, prefopt_context *context,
                         const prefopt_train_options *o)
{
    prefopt_policy *policy = small_policy(context, 5);
    prefopt_dataset *data = small_pairs(context);
    prefopt_reference *reference = NULL;
    prefopt_evaluation_options e;
    OK(prefopt_evaluation_options_init(&e, sizeof e));
    e.every = 3;
    OK(prefopt_reference_freeze(&reference, policy));
    OK(prefopt_trainer_create_dpo(out, policy, reference, data, NULL, o));
    OK(prefopt_trainer_set_evaluation(*out, data, reference, &e));
    prefopt_reference_destroy(reference);
    prefopt_dataset_destroy(data);
    prefopt_policy_destroy(policy);
    return PREFOPT_OK;
}

static int32_t begin_reward(prefopt_trainer **out, prefopt_context *context,
                            const prefopt_train_options *o)
{
    prefopt_policy *policy = small_policy(context, 5);
    prefopt_dataset *data = small_pairs(context);
    prefopt_reward *reward = NULL;
    prefopt_bt_options bt;
    OK(prefopt_bt_options_init(&bt, sizeof bt));
    bt.tie_model = PREFOPT_TIE_DAVIDSON;
    OK(prefopt_reward_from_policy(&reward, policy));
    OK(prefopt_trainer_create_reward(out, reward, data, &bt, o));
    prefopt_reward_destroy(reward);
    prefopt_dataset_destroy(data);
    prefopt_policy_destroy(policy);
    return PREFOPT_OK;
}

static int32_t sampled(prefopt_trainer **out, prefopt_context *context,
                       const prefopt_round_options *rounds, const prefopt_train_options *o)
{
    prefopt_policy *policy = small_policy(context, 5);
    prefopt_reference *reference = NULL;
    prefopt_reward *reward = NULL;
    prefopt_sampler_options sampler;
    const prefopt_reward_callbacks callbacks = {.struct_size = sizeof callbacks, .scores = like};
    OK(prefopt_sampler_options_init(&sampler, sizeof sampler));
    sampler.max_tokens = 4;
    prefopt_dataset *prompts = NULL;
    OK(prefopt_dataset_create(&prompts, context));
    for (int32_t i = 0; i < 6; i++) {
        prefopt_row row;
        int32_t prompt[] = {i, 10};
        OK(prefopt_row_init(&row, sizeof row));
        row.prompt = prompt;
        row.prompt_len = 2;
        OK(prefopt_dataset_append(prompts, &row));
    }
    OK(prefopt_reference_freeze(&reference, policy));
    OK(prefopt_reward_create_custom(&reward, context, &callbacks, NULL));
    OK(prefopt_trainer_create_online_dpo(out, policy, reference, reward, prompts, NULL, &sampler,
                                         NULL, rounds, o));
    prefopt_dataset_destroy(prompts);
    prefopt_reward_destroy(reward);
    prefopt_reference_destroy(reference);
    prefopt_policy_destroy(policy);
    return PREFOPT_OK;
}

static int32_t begin_online(prefopt_trainer **out, prefopt_context *context,
                            const prefopt_train_options *o)
{
    return sampled(out, context, NULL, o);
}

/* Two saves of three fall within a round: what it drew is kept, and from step 6 on a reference that
 * is no longer the one that was handed over. */
static int32_t begin_rounds(prefopt_trainer **out, prefopt_context *context,
                            const prefopt_train_options *o)
{
    prefopt_round_options rounds;
    OK(prefopt_round_options_init(&rounds, sizeof rounds));
    rounds.prompts = 4;
    rounds.steps = 3;
    rounds.refresh = 2;
    return sampled(out, context, &rounds, o);
}

/* From where it stands to the end; in a process of its own. */
static int go_to_the_end(begin_fn *begin, const char *directory, heard *tell)
{
    prefopt_context *context = test_context(1);
    saving s = {.directory = directory, .heard = tell};
    prefopt_train_options o = train_defaults();
    o.batch = 2;
    o.learning_rate = 3e-3;
    o.schedule = PREFOPT_LINEAR;
    o.schedule_steps = STEPS;
    o.progress = on_progress;
    o.progress_payload = &s;
    if (begin(&s.trainer, context, &o) != PREFOPT_OK)
        return 1;
    int64_t step = -1;
    if (prefopt_checkpoint_latest(directory, &step, NULL, 0, NULL) != PREFOPT_OK)
        return 2;
    if (step >= 0 && prefopt_trainer_restore(s.trainer, directory) != PREFOPT_OK)
        return 3;
    /* A run of no steps would evaluate where it stands. */
    if (step < STEPS &&
        prefopt_trainer_run(s.trainer, STEPS - (step < 0 ? 0 : step), NULL) != PREFOPT_OK)
        return 4;
    /* Killed while the last save removed an older checkpoint: saving once more ends that. */
    if (step == STEPS && on_progress(&s, NULL) != 0)
        return 5;
    prefopt_trainer_destroy(s.trainer);
    prefopt_context_destroy(context);
    return 0;
}

/* Runs it in a child that is killed so long after so many steps (< 0: never). True: it was. */
static bool run_child(begin_fn *begin, const char *directory, heard *hears, int64_t steps,
                      double after)
{
    int status;
    hears->steps = 0;
    pid_t child = fork(), ended = 0;
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        int failed = go_to_the_end(begin, directory, hears);
        if (failed != 0)
            fprintf(stderr, "child: %d: %s\n", failed, prefopt_last_error());
        _exit(failed);
    }
    if (steps >= 0) {
        while (hears->steps < steps && (ended = waitpid(child, &status, WNOHANG)) == 0)
            usleep(50);
        if (ended == 0) {
            usleep((useconds_t)(after * 1e6));
            kill(child, SIGKILL);
        }
    }
    if (ended == 0)
        ended = waitpid(child, &status, 0);
    ck_assert_int_eq(ended, child);
    if (WIFSIGNALED(status))
        return true;
    ck_assert_int_eq(WEXITSTATUS(status), 0);
    return false;
}

static void kill_at_random(begin_fn *begin, int kills)
{
    char *whole = strdup(at(base, "whole")), *killed = strdup(at(base, "killed"));
    heard *hears =
        mmap(NULL, sizeof *hears, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(hears, MAP_FAILED);
    double start = seconds(), draw[2] = {0};
    ck_assert(!run_child(begin, whole, hears, -1, 0));
    const double opening = hears->first - start;
    const double cycle = EVERY * (hears->newest - hears->first) / (STEPS - 1);
    int64_t seen[STEPS + 1] = {0}, step, n = 0;
    int places = 0;
    /* A moment is drawn in the opening (one kill in eight) or, after the first to the seventh step,
     * in the time from one save to the next: most kills leave a run that has gone on. */
    for (int done = 0; done < kills || places <= 2; n++) {
        ck_assert_int_lt(n, 50 * kills);
        OK(prefopt_random_uniform(3, 0, (uint64_t)(2 * n), 2, draw));
        const int64_t steps = (int64_t)(8 * draw[0]);
        if (run_child(begin, killed, hears, steps, draw[1] * (steps == 0 ? opening : cycle))) {
            done++;
            OK(prefopt_checkpoint_latest(killed, &step, NULL, 0, NULL));
            places += seen[step < 0 ? 0 : step]++ == 0;
        } else {
            same_checkpoint(step_folder(whole, STEPS), step_folder(killed, STEPS));
            remove_all(killed);
        }
    }
    ck_assert(!run_child(begin, killed, hears, -1, 0));
    same_checkpoint(step_folder(whole, STEPS), step_folder(killed, STEPS));
    same_checkpoint(step_folder(whole, STEPS - EVERY), step_folder(killed, STEPS - EVERY));
    /* Nothing is left but the two that stay. */
    ck_assert_int_eq(count_names(killed), 2);
    munmap(hears, sizeof *hears);
    free(whole);
    free(killed);
}

START_TEST(test_dpo_killed) { kill_at_random(begin_dpo, 20); }
END_TEST

START_TEST(test_reward_killed) { kill_at_random(begin_reward, 8); }
END_TEST

START_TEST(test_online_killed) { kill_at_random(begin_online, 8); }
END_TEST

START_TEST(test_rounds_killed) { kill_at_random(begin_rounds, 8); }
END_TEST

/* ---------------------------------------------------------------- at each system call */

typedef struct {
    const char *directory;
    prefopt_context *context;
    prefopt_trainer *trainer;
    int64_t last, before, after;
} looks;

static int32_t save_new(void *payload)
{
    looks *l = payload;
    prefopt_save_options o;
    OK(prefopt_save_options_init(&o, sizeof o));
    o.keep = 2;
    return prefopt_trainer_save(l->trainer, l->directory, &o);
}

/* A kill here would leave a whole checkpoint: the one before, and later the new one for good. */
static void look(void *payload)
{
    looks *l = payload;
    int64_t step;
    pf_saved from;
    OK(prefopt_checkpoint_latest(l->directory, &step, NULL, 0, NULL));
    ck_assert_int_ge(step, l->last);
    l->last = step;
    *(step == 3 ? &l->after : &l->before) += 1;
    ck_assert(step == 2 || step == 3);
    for (int64_t k = 1; k <= 3; k++) {
        if (access(step_folder(l->directory, k), F_OK) != 0)
            continue;
        OK(pf_saved_open(&from, l->context, step_folder(l->directory, k)));
        pf_saved_close(&from);
    }
}

START_TEST(test_every_system_call)
{
    enum { STRIDE = 17 };
    prefopt_context *context = test_context(1);
    setting s = setting_new(context);
    prefopt_policy *policy = tabular_policy(&s.w);
    prefopt_train_options o = train_defaults();
    char *run = strdup(at(base, "run"));
    looks l = {.directory = run, .context = context, .last = -1};
    OK(make_dpo(&l.trainer, &s, policy, &o));
    for (int i = 0; i < 3; i++) {
        OK(prefopt_trainer_run(l.trainer, 1, NULL));
        if (i < 2)
            OK(prefopt_trainer_save(l.trainer, l.directory, NULL));
    }
    ck_assert(killed_at(save_new, &l, 1000000, look, &l));
    if (l.before + l.after > 0)
        ck_assert_msg(l.before > 20 && l.after > 6, "%lld, %lld", (long long)l.before,
                      (long long)l.after);
    ck_assert_int_eq(count_names(l.directory), 2);
    /* The next save removes what a kill has left. */
    for (int n = 1;; n += STRIDE) {
        remove_all(step_folder(l.directory, 3));
        if (killed_at(save_new, &l, n, NULL, NULL))
            break;
        OK(save_new(&l));
        ck_assert_int_eq(count_names(l.directory), 2);
    }
    prefopt_trainer_destroy(l.trainer);
    prefopt_policy_destroy(policy);
    setting_free(&s);
    free(run);
    prefopt_context_destroy(context);
}
END_TEST

/* ---------------------------------------------------------------- no room */

static void fill_disk(const char *disk, bool fill)
{
    static const char filler[100000];
    for (int i = 0; i < 12; i++) {
        char name[16];
        snprintf(name, sizeof name, "filler%d", i);
        FILE *file = fill ? fopen(at(disk, name), "wb") : NULL;
        if (file != NULL) {
            fwrite(filler, 1, sizeof filler, file);
            fclose(file);
        } else {
            unlink(at(disk, name));
        }
    }
}

/* On a disk of one megabyte: the checkpoint before stays whole, the trainer trains on, and saves
 * once there is room. */
START_TEST(test_disk_full)
{
    prefopt_context *context = test_context(1);
    char *disk = strdup(at(base, "disk")), *run = strdup(at(base, "disk/run"));
    ck_assert_int_eq(mkdir(disk, 0700), 0);
    if (mount("none", disk, "tmpfs", 0, "size=1m") != 0) {
        fprintf(stderr, "test_disk_full: left out, mounting is not allowed here\n");
        prefopt_context_destroy(context);
        free(disk);
        free(run);
        return;
    }
    prefopt_policy *policy = small_policy(context, 5), *other = small_policy(context, 6);
    prefopt_dataset *data = small_pairs(context);
    prefopt_reference *reference = NULL;
    prefopt_trainer *trainer = NULL, *whole = NULL;
    prefopt_train_options o = train_defaults();
    o.batch = 2;
    OK(prefopt_reference_freeze(&reference, policy));
    OK(prefopt_trainer_create_dpo(&trainer, policy, reference, data, NULL, &o));
    OK(prefopt_trainer_create_dpo(&whole, other, reference, data, NULL, &o));
    OK(prefopt_trainer_run(trainer, 2, NULL));
    OK(prefopt_trainer_save(trainer, run, NULL));
    OK(prefopt_trainer_run(trainer, 1, NULL));
    fill_disk(disk, true);
    FAILS(PREFOPT_ERR_IO, "No space left", prefopt_trainer_save(trainer, run, NULL));
    ck_assert_ptr_nonnull(strstr(prefopt_last_error(), "dpo: saving step 3: "));
    ck_assert_ptr_nonnull(strstr(prefopt_last_error(), "disk/run"));
    ck_assert_int_eq(count_names(run), 1);
    OK(prefopt_trainer_restore(whole, run));
    OK(prefopt_trainer_run(whole, 2, NULL));
    OK(prefopt_trainer_run(trainer, 1, NULL));
    fill_disk(disk, false);
    OK(prefopt_trainer_save(trainer, run, NULL));
    OK(prefopt_trainer_save(whole, at(base, "whole"), NULL));
    same_checkpoint(step_folder(run, 4), step_folder(at(base, "whole"), 4));
    prefopt_trainer_destroy(trainer);
    prefopt_trainer_destroy(whole);
    prefopt_reference_destroy(reference);
    prefopt_dataset_destroy(data);
    prefopt_policy_destroy(policy);
    prefopt_policy_destroy(other);
    umount(disk);
    free(disk);
    free(run);
    prefopt_context_destroy(context);
}
END_TEST

/* A disk on which no folder can be made once the new checkpoint is there: the old one goes, or
 * there would never be room again. */
START_TEST(test_pruned_without_room)
{
    prefopt_context *context = test_context(1);
    one x = one_new(context);
    prefopt_save_options o;
    struct statvfs room;
    OK(prefopt_save_options_init(&o, sizeof o));
    o.keep = 1;
    char *disk = strdup(at(base, "disk")), *run = strdup(at(base, "disk/run"));
    ck_assert_int_eq(mkdir(disk, 0700), 0);
    if (mount("none", disk, "tmpfs", 0, "size=1m,nr_inodes=16") == 0) {
        OK(prefopt_trainer_save(x.trainer, run, &o));
        OK(prefopt_trainer_run(x.trainer, 1, NULL));
        /* The folder and its two files are all there is room for. */
        ck_assert_int_eq(statvfs(disk, &room), 0);
        ck_assert_int_gt(room.f_ffree, 3);
        for (int64_t i = (int64_t)room.f_ffree; i > 3; i--) {
            char name[16];
            snprintf(name, sizeof name, "filler%d", (int)i);
            put_text(disk, name, "");
        }
        OK(prefopt_trainer_save(x.trainer, run, &o));
        ck_assert_int_eq(count_names(run), 1);
        ck_assert(is_there(run, 1));
        OK(prefopt_trainer_restore(x.trainer, run));
        OK(prefopt_trainer_run(x.trainer, 1, NULL));
        OK(prefopt_trainer_save(x.trainer, run, &o));
        ck_assert(is_there(run, 2));
        ck_assert_int_eq(umount(disk), 0);
    } else {
        fprintf(stderr, "test_pruned_without_room: left out, mounting is not allowed here\n");
    }
    free(disk);
    free(run);
    one_free(&x);
    prefopt_context_destroy(context);
}
END_TEST

/* Memory that is filled at each malloc (MALLOC_PERTURB_) would make the start of a process, where
 * no step is killed, most of its time. */
static void set_up(void)
{
    mallopt(M_PERTURB, 0);
    new_base();
}

TEST_MAIN_IN(set_up, remove_base, "trainer_killed", test_dpo_killed, test_reward_killed,
             test_online_killed, test_rounds_killed, test_every_system_call, test_disk_full,
             test_pruned_without_room)
