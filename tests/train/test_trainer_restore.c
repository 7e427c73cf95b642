/* Which checkpoints a trainer refuses to go on from, and that nothing has changed then: those of
 * other runs, and damaged ones. */
#define _GNU_SOURCE
#include "saved_run.h"

/* ---------------------------------------------------------------- other runs */

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
    replace_text(folder, "\"trainer.step\": 3", "\"trainer.step\": -1");
    DAMAGED("trainer.step is -1, expected 0 to 2^62 - 1");
    replace_text(folder, "\"trainer.step\": 3", "\"trainer.step\": 9223372036854775807");
    DAMAGED("trainer.step is 9223372036854775807, expected 0 to 2^62 - 1");
    replace_text(folder, "\"trainer.step\": 3", "\"trainer.step\": 4");
    DAMAGED("trainer.step is 4, but the folder is named after step 3");
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

TEST_MAIN_IN(new_base, remove_base, "trainer_restore", test_other_runs, test_other_judges,
             test_damaged, test_damaged_model)
