/* Trainers saved and gone on with: the same bits as a run that was never saved; what is refused,
 * and that nothing has changed then; which checkpoints stay. */
#define _GNU_SOURCE
#include "every_objective.h"
#include "saved_test.h"

static char base[PATH_ROOM];

static void setup(void) { new_folder(base); }

static void teardown(void) { remove_all(base); }

static bool is_there(const char *directory, int64_t step)
{
    return access(step_folder(directory, step), F_OK) == 0;
}

/* ---------------------------------------------------------------- the same bits */

static void go_on(make_fn *make, const char *name, const prefopt_train_options *o, int threads)
{
    prefopt_context *context = test_context(1), *other = test_context(threads);
    setting s = setting_new(context), t = setting_new(other);
    prefopt_trainer *whole = NULL, *first = NULL, *second = NULL;
    prefopt_policy *a = tabular_policy(&s.w), *b = tabular_policy(&s.w), *c = tabular_policy(&t.w);
    randomise(a, 3, 0.5);
    randomise(b, 3, 0.5);
    randomise(c, 4, 0.9);
    OK(make(&whole, &s, a, o));
    OK(make(&first, &s, b, o));
    OK(make(&second, &t, c, o));
    OK(prefopt_trainer_run(whole, 11, NULL));
    OK(prefopt_trainer_save(whole, at(base, "whole"), NULL));
    OK(prefopt_trainer_run(first, 4, NULL));
    OK(prefopt_trainer_save(first, at(base, "parts"), NULL));
    int64_t step = -1;
    OK(prefopt_trainer_restore(second, at(base, "parts")));
    OK(prefopt_trainer_step(second, &step));
    ck_assert_int_eq(step, 4);
    OK(prefopt_trainer_run(second, 7, NULL));
    OK(prefopt_trainer_save(second, at(base, "parts"), NULL));
    /* As far as the hashes in trainer.json tell, which are of all that there is. */
    same_checkpoint(step_folder(at(base, "whole"), 11), step_folder(at(base, "parts"), 11));
    prefopt_parameters p = parameters_of(a), q = parameters_of(c);
    ck_assert_msg(memcmp(p.value, q.value, (size_t)p.n * sizeof(double)) == 0, "%s", name);
    prefopt_trainer_destroy(whole);
    prefopt_trainer_destroy(first);
    prefopt_trainer_destroy(second);
    prefopt_policy_destroy(a);
    prefopt_policy_destroy(b);
    prefopt_policy_destroy(c);
    setting_free(&s);
    setting_free(&t);
    prefopt_context_destroy(context);
    prefopt_context_destroy(other);
    remove_all(at(base, "whole"));
    remove_all(at(base, "parts"));
}

START_TEST(test_every_objective)
{
    prefopt_train_options o = train_defaults();
    o.learning_rate = 0.05;
    o.batch = 3;
    o.seed = UINT64_C(0xf000000000000001);
    o.schedule = PREFOPT_COSINE;
    o.schedule_steps = 20;
    o.warmup_steps = 6;
    o.clip_norm = 0.5;
    for (size_t i = 0; i < N_OBJECTIVES; i++)
        go_on(objectives[i].make, objectives[i].name, &o, 2);
    o.optimiser = PREFOPT_SGD;
    o.momentum = 0.9;
    go_on(make_dpo, "momentum", &o, 2);
    o.momentum = 0;
    go_on(make_reward, "sgd", &o, 2);
}
END_TEST

/* Float parameters; the folder is a checkpoint of the model. */
START_TEST(test_language_model)
{
    prefopt_context *context = test_context(1);
    prefopt_policy *a = small_policy(context, 5), *b = small_policy(context, 6), *loaded = NULL;
    prefopt_dataset *data = small_pairs(context);
    prefopt_reference *reference = NULL, *between = NULL;
    prefopt_trainer *whole = NULL, *part = NULL;
    prefopt_train_options o = train_defaults();
    o.batch = 2;
    o.learning_rate = 3e-3;
    OK(prefopt_reference_freeze(&reference, a));
    OK(prefopt_trainer_create_dpo(&whole, a, reference, data, NULL, &o));
    OK(prefopt_trainer_create_dpo(&part, b, reference, data, NULL, &o));
    OK(prefopt_trainer_run(whole, 3, NULL));
    OK(prefopt_trainer_save(whole, base, NULL));
    OK(prefopt_policy_load(&loaded, context, step_folder(base, 3)));
    prefopt_sequences in = {.struct_size = sizeof in};
    OK(prefopt_dataset_sequences(data, &in));
    double x[12], y[12];
    OK(prefopt_policy_logprobs(a, &in, x, NULL));
    OK(prefopt_policy_logprobs(loaded, &in, y, NULL));
    ck_assert_int_eq(memcmp(x, y, sizeof x), 0);
    /* A snapshot that shares the weights stays what it was when they are restored into. */
    OK(prefopt_reference_freeze(&between, b));
    OK(prefopt_policy_logprobs(b, &in, x, NULL));
    OK(prefopt_trainer_restore(part, base));
    OK(prefopt_reference_logprobs(between, &in, y));
    ck_assert_int_eq(memcmp(x, y, sizeof x), 0);
    OK(prefopt_policy_logprobs(a, &in, x, NULL));
    OK(prefopt_policy_logprobs(b, &in, y, NULL));
    ck_assert_int_eq(memcmp(x, y, sizeof x), 0);
    /* Saving leaves weights shared, and so do snapshots. */
    prefopt_reference_destroy(between);
    OK(prefopt_reference_freeze(&between, b));
    OK(prefopt_trainer_save(part, at(base, "again"), NULL));
    same_checkpoint(step_folder(base, 3), step_folder(at(base, "again"), 3));
    OK(prefopt_trainer_run(whole, 5, NULL));
    OK(prefopt_trainer_run(part, 5, NULL));
    OK(prefopt_trainer_save(whole, base, NULL));
    OK(prefopt_trainer_save(part, at(base, "again"), NULL));
    same_checkpoint(step_folder(base, 8), step_folder(at(base, "again"), 8));
    /* A mask is a part of what the run is. */
    uint8_t allowed[11 * 11];
    memset(allowed, 1, sizeof allowed);
    allowed[5] = 0;
    OK(prefopt_policy_set_transitions(b, allowed));
    FAILS(PREFOPT_ERR_STATE, "model.transitions is \"none\", but this trainer's is \"",
          prefopt_trainer_restore(part, base));
    OK(prefopt_policy_set_transitions(b, NULL));
    /* The folder of one step. */
    int64_t step = -1;
    OK(prefopt_trainer_restore(part, step_folder(base, 3)));
    OK(prefopt_trainer_step(part, &step));
    ck_assert_int_eq(step, 3);
    prefopt_trainer_destroy(whole);
    prefopt_trainer_destroy(part);
    prefopt_reference_destroy(reference);
    prefopt_reference_destroy(between);
    prefopt_dataset_destroy(data);
    prefopt_policy_destroy(a);
    prefopt_policy_destroy(b);
    prefopt_policy_destroy(loaded);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(test_reward_model)
{
    prefopt_context *context = test_context(2);
    prefopt_policy *policy = small_policy(context, 5);
    prefopt_dataset *data = small_pairs(context);
    prefopt_reward *a = NULL, *b = NULL, *loaded = NULL;
    prefopt_trainer *whole = NULL, *part = NULL;
    prefopt_train_options o = train_defaults();
    prefopt_bt_options bt;
    OK(prefopt_bt_options_init(&bt, sizeof bt));
    bt.tie_model = PREFOPT_TIE_RAO_KUPPER;
    o.learning_rate = 3e-3;
    OK(prefopt_reward_from_policy(&a, policy));
    OK(prefopt_reward_from_policy(&b, policy));
    OK(prefopt_trainer_create_reward(&whole, a, data, &bt, &o));
    OK(prefopt_trainer_create_reward(&part, b, data, &bt, &o));
    OK(prefopt_trainer_run(whole, 4, NULL));
    OK(prefopt_trainer_save(whole, base, NULL));
    OK(prefopt_reward_load(&loaded, context, step_folder(base, 4)));
    OK(prefopt_trainer_restore(part, base));
    OK(prefopt_trainer_run(whole, 4, NULL));
    OK(prefopt_trainer_run(part, 4, NULL));
    double x = 0, y = 1;
    OK(prefopt_trainer_log_tie(whole, &x));
    OK(prefopt_trainer_log_tie(part, &y));
    ck_assert(x == y && x != 0.5);
    OK(prefopt_trainer_save(whole, base, NULL));
    OK(prefopt_trainer_save(part, at(base, "again"), NULL));
    same_checkpoint(step_folder(base, 8), step_folder(at(base, "again"), 8));
    prefopt_trainer_destroy(whole);
    prefopt_trainer_destroy(part);
    prefopt_reward_destroy(a);
    prefopt_reward_destroy(b);
    prefopt_reward_destroy(loaded);
    prefopt_dataset_destroy(data);
    prefopt_policy_destroy(policy);
    prefopt_context_destroy(context);
}
END_TEST

/* The evaluation goes on too: what was best, and for how long patience has waited. */
START_TEST(test_evaluation)
{
    prefopt_context *context = test_context(1);
    prefopt_policy *a = small_policy(context, 5), *b = small_policy(context, 6);
    prefopt_dataset *data = small_pairs(context), *held_out = NULL;
    prefopt_reward *x = NULL, *y = NULL;
    prefopt_trainer *whole = NULL, *part = NULL;
    prefopt_train_options o = train_defaults();
    prefopt_bt_options bt;
    prefopt_evaluation_options e;
    prefopt_save_options save;
    OK(prefopt_bt_options_init(&bt, sizeof bt));
    OK(prefopt_evaluation_options_init(&e, sizeof e));
    OK(prefopt_save_options_init(&save, sizeof save));
    bt.tie_model = PREFOPT_TIE_DAVIDSON;
    o.batch = 2;
    o.learning_rate = 0.05;
    e.every = 2;
    e.patience = 3;
    e.min_delta = 1e-4;
    OK(prefopt_dataset_create(&held_out, context));
    /* Three pairs as in training and one against them: what is learnt helps until it is sure. */
    for (int32_t i = 0; i < 4; i++) {
        int32_t prompt[] = {i, 10}, good[] = {(i + 1) % 9, 3}, bad[] = {(i + 2) % 9, 4};
        OK(prefopt_dataset_append_pair(held_out, prompt, 2, i < 3 ? good : bad, 2,
                                       i < 3 ? bad : good, 2, 1, 1, 0));
    }
    OK(prefopt_reward_from_policy(&x, a));
    OK(prefopt_reward_from_policy(&y, b));
    OK(prefopt_trainer_create_reward(&whole, x, data, &bt, &o));
    OK(prefopt_trainer_create_reward(&part, y, data, &bt, &o));
    OK(prefopt_trainer_set_evaluation(whole, held_out, NULL, &e));
    /* Without the same evaluation it is another run. */
    OK(prefopt_trainer_save(whole, base, NULL));
    FAILS(PREFOPT_ERR_STATE, "evaluation.keep_best is 1, but this trainer's is missing",
          prefopt_trainer_restore(part, base));
    e.every = 3;
    OK(prefopt_trainer_set_evaluation(part, held_out, NULL, &e));
    FAILS(PREFOPT_ERR_STATE, "evaluation.every is 2, but this trainer's is 3",
          prefopt_trainer_restore(part, base));
    e.every = 2;
    OK(prefopt_trainer_set_evaluation(part, data, NULL, &e));
    FAILS(PREFOPT_ERR_STATE, "evaluation.rows is 4, but this trainer's is 6",
          prefopt_trainer_restore(part, base));
    OK(prefopt_trainer_set_evaluation(part, held_out, NULL, &e));
    OK(prefopt_trainer_restore(part, base)); /* before the first look */
    prefopt_progress p = {.struct_size = sizeof p}, q = {.struct_size = sizeof q};
    int32_t status = PREFOPT_OK;
    int64_t step = 0;
    save.keep = 1;
    save.keep_best = 1;
    /* Saved and given to the other after each step. */
    for (int i = 0; i < 40 && status == PREFOPT_OK; i++) {
        status = prefopt_trainer_run(whole, 1, &p);
        OK(prefopt_trainer_save(whole, base, &save));
        OK(prefopt_trainer_restore(part, base));
        OK(prefopt_trainer_step(part, &step));
        ck_assert(is_there(base, step) && (p.best_step == 0 || is_there(base, p.best_step)));
        ck_assert_int_le(count_names(base), 3);
        OK(prefopt_trainer_save(part, at(base, "again"), NULL));
        same_checkpoint(step_folder(base, step), step_folder(at(base, "again"), step));
        remove_all(at(base, "again"));
    }
    ck_assert_int_eq(status, PREFOPT_STOPPED);
    ck_assert(p.stopped_early == 1 && p.best_step > 0 && p.best_step < step);
    ck_assert_int_eq(prefopt_trainer_run(part, 5, &q), PREFOPT_STOPPED);
    ck_assert(q.stopped_early == 1 && q.best_step == p.best_step &&
              q.best_eval_loss == p.best_eval_loss);
    OK(prefopt_trainer_restore_best(whole));
    OK(prefopt_trainer_restore_best(part));
    OK(prefopt_trainer_save(whole, at(base, "one"), NULL));
    OK(prefopt_trainer_save(part, at(base, "two"), NULL));
    same_checkpoint(step_folder(at(base, "one"), step), step_folder(at(base, "two"), step));
    prefopt_trainer_destroy(whole);
    prefopt_trainer_destroy(part);
    prefopt_reward_destroy(x);
    prefopt_reward_destroy(y);
    prefopt_dataset_destroy(data);
    prefopt_dataset_destroy(held_out);
    prefopt_policy_destroy(a);
    prefopt_policy_destroy(b);
    prefopt_context_destroy(context);
}
END_TEST

/* ---------------------------------------------------------------- refused */

/* A trainer that has taken some steps, and all its bytes, by a save. */
typedef struct {
    prefopt_context *context;
    setting s;
    prefopt_policy *policy;
    prefopt_train_options o;
    prefopt_trainer *trainer;
} one;

static one one_new(prefopt_context *context)
{
    one x = {.context = context, .s = setting_new(context), .o = train_defaults()};
    x.o.batch = 3;
    x.policy = tabular_policy(&x.s.w);
    randomise(x.policy, 3, 0.5);
    OK(make_dpo(&x.trainer, &x.s, x.policy, &x.o));
    return x;
}

static void one_free(one *x)
{
    prefopt_trainer_destroy(x->trainer);
    prefopt_policy_destroy(x->policy);
    setting_free(&x->s);
}

/* restore fails with that, and the trainer is as before. */
static void refuses(prefopt_trainer *trainer, const char *directory, int32_t code,
                    const char *const texts[])
{
    const char *before = at(base, "before"), *after = at(base, "after");
    int64_t step = 0;
    OK(prefopt_trainer_step(trainer, &step));
    OK(prefopt_trainer_save(trainer, before, NULL));
    int32_t status = prefopt_trainer_restore(trainer, directory);
    ck_assert_msg(status == code, "%s, expected %s (%s)", prefopt_status_name(status),
                  prefopt_status_name(code), prefopt_last_error());
    for (int i = 0; texts[i] != NULL; i++)
        ck_assert_msg(strstr(prefopt_last_error(), texts[i]) != NULL, "\"%s\" lacks \"%s\"",
                      prefopt_last_error(), texts[i]);
    OK(prefopt_trainer_save(trainer, after, NULL));
    same_checkpoint(step_folder(before, step), step_folder(after, step));
    remove_all(before);
    remove_all(after);
}

#define REFUSES(trainer, directory, code, ...)                                                     \
    refuses(trainer, directory, code, (const char *const[]){__VA_ARGS__, NULL})

/* A trainer made with `o` or by `make` refuses the checkpoint of `x`. */
static void other_run(const one *x, make_fn *make, const prefopt_train_options *o, const char *a,
                      const char *b)
{
    prefopt_trainer *other = NULL;
    prefopt_policy *policy = tabular_policy(&x->s.w);
    OK(make(&other, &x->s, policy, o));
    OK(prefopt_trainer_run(other, 2, NULL));
    REFUSES(other, at(base, "run"), PREFOPT_ERR_STATE, a, b);
    prefopt_trainer_destroy(other);
    prefopt_policy_destroy(policy);
}

START_TEST(test_other_runs)
{
    prefopt_context *context = test_context(1);
    one x = one_new(context);
    OK(prefopt_trainer_run(x.trainer, 3, NULL));
    OK(prefopt_trainer_save(x.trainer, at(base, "run"), NULL));
    prefopt_train_options o = x.o;
    o.learning_rate = 0.5;
    other_run(&x, make_dpo, &o, "train.learning_rate is 0.01", "is 0.5");
    o = x.o;
    o.batch = 2;
    other_run(&x, make_dpo, &o, "train.batch is 3", "is 2");
    o = x.o;
    o.seed = UINT64_MAX;
    other_run(&x, make_dpo, &o, "train.seed is 0", "18446744073709551615");
    o = x.o;
    o.optimiser = PREFOPT_SGD;
    other_run(&x, make_dpo, &o, "train.optimiser is 0", "is 1");
    other_run(&x, make_ranked_dpo, &x.o, "data.rows is", "this trainer's is 7");
    other_run(&x, make_simpo, &x.o, "dpo.variant is 0", "trainer.json");
    other_run(&x, make_mle, &x.o, "objective is \"dpo\"", "is \"mle\"");
    other_run(&x, make_online, &x.o, "objective is \"dpo\"", "is \"online_dpo\"");
    /* The same number of rows with other content; another reference; another model. */
    prefopt_dataset *pairs = random_pairs(&x.s.w, 77, 4);
    prefopt_trainer *other = NULL;
    prefopt_reference *reference = NULL;
    prefopt_policy *policy = tabular_policy(&x.s.w);
    OK(prefopt_trainer_create_dpo(&other, policy, x.s.reference, pairs, NULL, &x.o));
    REFUSES(other, at(base, "run"), PREFOPT_ERR_STATE, "data.hash is \"");
    prefopt_trainer_destroy(other);
    OK(prefopt_reference_freeze(&reference, policy));
    OK(prefopt_trainer_create_dpo(&other, policy, reference, x.s.pairs, NULL, &x.o));
    REFUSES(other, at(base, "run"), PREFOPT_ERR_STATE, "dpo.reference_logp is {\"mean\":-");
    prefopt_trainer_destroy(other);
    prefopt_reference_destroy(reference);
    prefopt_policy_destroy(policy);
    prefopt_dataset_destroy(pairs);
    world w = world_new(context, 4, 3, 2, -1);
    OK(prefopt_reference_freeze(&reference, w.policy));
    OK(prefopt_trainer_create_dpo(&other, w.policy, reference, x.s.pairs, NULL, &x.o));
    REFUSES(other, at(base, "run"), PREFOPT_ERR_STATE, "model.n is 36", "is 48");
    prefopt_trainer_destroy(other);
    prefopt_reference_destroy(reference);
    world_free(&w);
    /* Another reference of the held-out pairs. */
    prefopt_evaluation_options e;
    OK(prefopt_evaluation_options_init(&e, sizeof e));
    OK(prefopt_trainer_set_evaluation(x.trainer, x.s.margined, x.s.reference, &e));
    OK(prefopt_trainer_save(x.trainer, at(base, "evaluated"), NULL));
    policy = tabular_policy(&x.s.w);
    OK(prefopt_reference_freeze(&reference, policy));
    OK(make_dpo(&other, &x.s, policy, &x.o));
    OK(prefopt_trainer_set_evaluation(other, x.s.margined, reference, &e));
    REFUSES(other, at(base, "evaluated"), PREFOPT_ERR_STATE, "evaluation.reference_logp is {");
    OK(prefopt_trainer_set_evaluation(other, x.s.margined, x.s.reference, &e));
    OK(prefopt_trainer_restore(other, at(base, "evaluated")));
    prefopt_trainer_destroy(other);
    prefopt_reference_destroy(reference);
    prefopt_policy_destroy(policy);
    /* What may differ. */
    o = x.o;
    o.tolerance = 1e-3;
    o.max_iterations = 3;
    OK(make_dpo(&other, &x.s, x.policy, &o));
    OK(prefopt_trainer_restore(other, at(base, "run")));
    prefopt_trainer_destroy(other);
    one_free(&x);
    prefopt_context_destroy(context);
}
END_TEST

/* Another reward model or reference of a run that samples. */
START_TEST(test_other_judges)
{
    prefopt_context *context = test_context(1);
    setting s = setting_new(context), t = setting_new(context);
    prefopt_train_options o = train_defaults();
    prefopt_parameters p = {.struct_size = sizeof p};
    make_fn *const makes[] = {make_policy_gradient, make_online};
    static const char *const names[] = {".reward_model is \"", ".reference is \""};
    OK(prefopt_reward_parameters(t.judge, &p));
    ((double *)p.value)[1] += 0.25;
    OK(prefopt_reward_updated(t.judge));
    for (int i = 0; i < 2; i++) {
        prefopt_policy *policy = tabular_policy(&s.w);
        prefopt_trainer *run = NULL, *other = NULL;
        OK(makes[i](&run, &s, policy, &o));
        OK(prefopt_trainer_run(run, 2, NULL));
        OK(prefopt_trainer_save(run, at(base, "run"), NULL));
        OK(makes[i](&other, &t, policy, &o));
        REFUSES(other, at(base, "run"), PREFOPT_ERR_STATE, names[0]);
        prefopt_trainer_destroy(other);
        prefopt_reference *kept = s.reference;
        OK(prefopt_reference_freeze(&s.reference, policy));
        OK(makes[i](&other, &s, policy, &o));
        REFUSES(other, at(base, "run"), PREFOPT_ERR_STATE, names[1]);
        prefopt_reference_destroy(s.reference);
        s.reference = kept;
        prefopt_trainer_destroy(other);
        prefopt_trainer_destroy(run);
        prefopt_policy_destroy(policy);
        remove_all(at(base, "run"));
    }
    setting_free(&s);
    setting_free(&t);
    prefopt_context_destroy(context);
}
END_TEST

/* ---------------------------------------------------------------- damaged */

static void replace_text(const char *folder, const char *from, const char *to)
{
    size_t n = 0;
    char *text = get_file(folder, "trainer.json", &n), *at = strstr(text, from);
    ck_assert_msg(at != NULL, "no %s in %s", from, text);
    char *changed = calloc(n + strlen(to) + 1, 1);
    memcpy(changed, text, (size_t)(at - text));
    strcat(changed, to);
    strcat(changed, at + strlen(from));
    put_text(folder, "trainer.json", changed);
    free(changed);
    free(text);
}

START_TEST(test_damaged)
{
    prefopt_context *context = test_context(1);
    one x = one_new(context);
    char run[PATH_ROOM + 64], folder[PATH_ROOM + 64], other[PATH_ROOM + 64];
    snprintf(run, sizeof run, "%s/run", base);
    snprintf(folder, sizeof folder, "%s/run/step-000000003", base);
    snprintf(other, sizeof other, "%s/run/step-000000002", base);
    OK(prefopt_trainer_run(x.trainer, 2, NULL));
    OK(prefopt_trainer_save(x.trainer, at(base, "run"), NULL));
    OK(prefopt_trainer_run(x.trainer, 1, NULL));
    OK(prefopt_trainer_save(x.trainer, at(base, "run"), NULL));
    OK(prefopt_trainer_run(x.trainer, 2, NULL));
    size_t n = 0, m = 0;
    char *arrays = get_file(folder, "optimiser.safetensors", &n);
    char *text = get_file(folder, "trainer.json", &m);
    char *older = get_file(other, "optimiser.safetensors", NULL);
    prefopt_trainer *t = x.trainer;
#define DAMAGED(...)                                                                               \
    do {                                                                                           \
        REFUSES(t, run, PREFOPT_ERR_FORMAT, __VA_ARGS__);                                          \
        put_file(folder, "optimiser.safetensors", arrays, n);                                      \
        put_file(folder, "trainer.json", text, m);                                                 \
    } while (0)
    /* Cut short anywhere, changed anywhere, of another step. */
    for (size_t cut = 0; cut < n; cut += n / 7) {
        put_file(folder, "optimiser.safetensors", arrays, cut);
        DAMAGED("optimiser.safetensors: ");
    }
    for (size_t cut = 0; cut < m - 1; cut += m / 7) {
        put_file(folder, "trainer.json", text, cut);
        DAMAGED("trainer.json: ");
    }
    for (size_t at = 0; at < 200; at += 23) {
        char *changed = malloc(n);
        memcpy(changed, arrays, n);
        changed[n - 1 - at] ^= 4;
        put_file(folder, "optimiser.safetensors", changed, n);
        DAMAGED("optimiser.safetensors: tensor ", "is not the one that trainer.json");
        free(changed);
    }
    put_file(folder, "optimiser.safetensors", older, n);
    DAMAGED("optimiser.safetensors: tensor ", "is not the one that trainer.json");
    /* Fields. */
    replace_text(folder, "\"prefopt-trainer\"", "\"another\"");
    DAMAGED("trainer.json: format is missing or is not \"prefopt-trainer\"");
    replace_text(folder, "\"version\": 1", "\"version\": 2");
    DAMAGED("trainer.json: version is 2, but this library");
    replace_text(folder, "\"optimiser.steps\": 3", "\"optimiser.steps\": 4");
    DAMAGED("optimiser.steps is 4, expected 0 to 3");
    replace_text(folder, "\"optimiser.steps\": 3", "\"optimiser.steps\": 3.5");
    DAMAGED("optimiser.steps is missing or is not an integer");
    replace_text(folder, "\"trainer.step\": 3", "\"trainer.stepp\": 3");
    DAMAGED("trainer.step is missing or is not an integer");
    replace_text(folder, "\"optimiser.moment_bound\"", "\"optimiser.moment\"");
    DAMAGED("optimiser.moment_bound is missing");
    replace_text(folder, "\"optimiser.second\": \"", "\"optimiser.second\": \"g");
    DAMAGED("trainer.json: optimiser.second is missing or is not a hash");
    replace_text(folder, "\"optimiser.second\"", "\"optimiser.third\"");
    DAMAGED("optimiser.safetensors: optimiser.third is missing");
    replace_text(folder, "\"state\"", "\"status\"");
    DAMAGED("trainer.json: state is missing or is not an object");
    put_text(folder, "trainer.json", "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[");
    DAMAGED("trainer.json: is no trainer's: too many brackets");
    put_text(folder, "trainer.json", "{\"format\": 1, \"format\": 2}");
    DAMAGED("trainer.json: is not valid JSON");
    replace_text(folder, "\"train.beta1\"", "\"train.beta3\"");
    REFUSES(t, run, PREFOPT_ERR_STATE, "train.beta1 is missing, but this trainer's is 0.9");
    put_file(folder, "trainer.json", text, m);
    /* Files that are not there. */
    ck_assert_int_eq(remove(at(folder, "optimiser.safetensors")), 0);
    REFUSES(t, run, PREFOPT_ERR_IO, "optimiser.safetensors: opening failed: No such file");
    put_file(folder, "optimiser.safetensors", arrays, n);
    /* A folder without trainer.json is none, and the one before is taken. */
    ck_assert_int_eq(remove(at(folder, "trainer.json")), 0);
    int64_t step = 0;
    OK(prefopt_trainer_restore(t, run));
    OK(prefopt_trainer_step(t, &step));
    ck_assert_int_eq(step, 2);
    REFUSES(t, folder, PREFOPT_ERR_IO, "has no checkpoint of a trainer");
    REFUSES(t, at(base, "none"), PREFOPT_ERR_IO, "none: has no checkpoint of a trainer");
    free(arrays);
    free(older);
    free(text);
    one_free(&x);
    prefopt_context_destroy(context);
}
END_TEST

/* Weights of another step, or not finite, in the model's own file. */
START_TEST(test_damaged_model)
{
    prefopt_context *context = test_context(1);
    prefopt_policy *policy = small_policy(context, 5);
    prefopt_dataset *data = small_pairs(context);
    prefopt_dpo_options dpo = dpo_of(PREFOPT_DPO_SIMPO);
    prefopt_trainer *trainer = NULL;
    prefopt_train_options o = train_defaults();
    OK(prefopt_trainer_create_dpo(&trainer, policy, NULL, data, &dpo, &o));
    OK(prefopt_trainer_save(trainer, base, NULL));
    OK(prefopt_trainer_run(trainer, 1, NULL));
    OK(prefopt_trainer_save(trainer, base, NULL));
    OK(prefopt_trainer_run(trainer, 1, NULL));
    char folder[PATH_ROOM + 64];
    snprintf(folder, sizeof folder, "%s", step_folder(base, 1));
    size_t n = 0;
    char *older = get_file(step_folder(base, 0), "model.safetensors", &n);
    char *right = get_file(folder, "model.safetensors", &n);
    put_file(folder, "model.safetensors", older, n);
    REFUSES(trainer, base, PREFOPT_ERR_FORMAT,
            "model.safetensors: not the weights that trainer.json was written with");
    put_file(folder, "model.safetensors", right, n - 4);
    REFUSES(trainer, base, PREFOPT_ERR_FORMAT, "model.safetensors: ");
    float nan = NAN;
    memcpy(right + n - 8, &nan, sizeof nan);
    put_file(folder, "model.safetensors", right, n);
    REFUSES(trainer, base, PREFOPT_ERR_FORMAT, "model.safetensors: tensor", "is nan");
    put_text(folder, "config.json", "{}");
    REFUSES(trainer, base, PREFOPT_ERR_FORMAT, "config.json");
    free(older);
    free(right);
    prefopt_trainer_destroy(trainer);
    prefopt_dataset_destroy(data);
    prefopt_policy_destroy(policy);
    prefopt_context_destroy(context);
}
END_TEST

/* ---------------------------------------------------------------- which stay */

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

int main(void)
{
    const TTest *const tests[] = {test_every_objective, test_language_model, test_reward_model,
                                  test_evaluation,      test_other_runs,     test_other_judges,
                                  test_damaged,         test_damaged_model,  test_pruning,
                                  test_latest,          test_arguments,      test_no_memory};
    Suite *suite = suite_create("trainer_save");
    TCase *group = tcase_create("trainer_save");
    tcase_set_timeout(group, 0);
    tcase_add_checked_fixture(group, setup, teardown);
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        tcase_add_test(group, tests[i]);
    suite_add_tcase(suite, group);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
