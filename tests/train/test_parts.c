/* Batches in parts that the model keeps: the same as unsplit for every objective, nothing computed
 * twice, prompts not cut without need. */
#include "model/pf_reward.h"
#include "train/pf_evaluation.h"
#include "spy_policy.h"

/* Three steps from the same start. micro: micro_batch. */
static void run_micro(const setting *s, size_t objective, int64_t batch, int64_t keeps,
                      int64_t micro, double *value, prefopt_progress *last)
{
    prefopt_train_options o = train_defaults();
    o.micro_batch = micro;
    o.optimiser = PREFOPT_SGD;
    o.learning_rate = 0.5;
    o.batch = batch;
    o.ridge = 0.1;
    prefopt_policy *policy = tabular_policy(&s->w);
    randomise(policy, 8, 0.5);
    watch(policy, keeps);
    prefopt_trainer *trainer;
    OK(objectives[objective].make(&trainer, s, policy, &o));
    spy.scored = 0; /* of the steps alone */
    *last = (prefopt_progress){.struct_size = sizeof *last};
    OK(prefopt_trainer_run(trainer, 3, last));
    prefopt_parameters p = parameters_of(policy);
    memcpy(value, p.value, (size_t)p.n * sizeof *value);
    if (trainer->has_extra)
        OK(prefopt_trainer_log_tie(trainer, &value[p.n]));
    prefopt_trainer_destroy(trainer);
    prefopt_policy_destroy(policy);
}

static void same_number(double a, double b, const char *field, size_t objective)
{
    ck_assert_msg(isnan(a) == isnan(b) && (isnan(a) || close_to(a, b, 1e-12)),
                  "%s: %s is %.17g, in parts %.17g", objectives[objective].name, field, a, b);
}

static void run(const setting *s, size_t objective, int64_t batch, int64_t keeps, double *value,
                prefopt_progress *last)
{
    run_micro(s, objective, batch, keeps, 0, value, last);
}

static void same_numbers(const prefopt_progress *at, const prefopt_progress *in, size_t i)
{
    same_number(at->loss, in->loss, "loss", i);
    same_number(at->accuracy, in->accuracy, "accuracy", i);
    same_number(at->margin, in->margin, "margin", i);
    same_number(at->kl, in->kl, "kl", i);
    same_number(at->reward, in->reward, "reward", i);
    same_number(at->grad_norm, in->grad_norm, "grad_norm", i);
    same_number(at->chosen_score, in->chosen_score, "chosen_score", i);
    same_number(at->rejected_score, in->rejected_score, "rejected_score", i);
    same_number(at->chosen_logp, in->chosen_logp, "chosen_logp", i);
    same_number(at->rejected_logp, in->rejected_logp, "rejected_logp", i);
    ck_assert_int_eq(at->tokens, in->tokens);
}

START_TEST(parts_equal_the_whole)
{
    prefopt_context *context = test_context(1);
    setting s = setting_new(context);
    size_t i = (size_t)_i;
    for (int64_t batch = 0; batch <= 4; batch += 4) {
        double whole[64] = {0}, parts[64] = {0};
        prefopt_progress at, in;
        int64_t n = parameters_of(s.w.policy).n + 1;
        ck_assert_int_le(n, 64);
        run(&s, i, batch, 0, whole, &at);
        ck_assert_int_eq(spy.calls, 3);
        int64_t scored = spy.scored;
        static const int64_t keeps[] = {1, 2, 3, 4, 5, 7, 1000};
        for (size_t k = 0; k < sizeof keeps / sizeof *keeps; k++) {
            run(&s, i, batch, keeps[k], parts, &in);
            ck_assert_int_gt(spy.asked, 0);
            ck_assert_int_le(spy.largest, keeps[k]);
            if (keeps[k] < 4)
                ck_assert_int_gt(spy.calls, 3);
            if (keeps[k] == 1000) {
                ck_assert_int_eq(spy.calls, 3);
                ck_assert_int_eq(spy.scored, scored);
            }
            /* Rows here have at most 4 sequences (soft RL: 9), which each part keeps. */
            if (objectives[i].by_rows && keeps[k] >= (objectives[i].make == make_soft_rl ? 9 : 4))
                ck_assert_int_eq(spy.again, 0);
            for (int64_t j = 0; j < n; j++)
                same_number(whole[j], parts[j], "a parameter", i);
            same_numbers(&at, &in, i);
        }
    }
    setting_free(&s);
    prefopt_context_destroy(context);
}
END_TEST

/* So many rows at once, whether the model can tell what it keeps (keeps > 0) or not. */
START_TEST(small_batches_equal_the_whole)
{
    prefopt_context *context = test_context(1);
    setting s = setting_new(context);
    size_t i = (size_t)_i;
    bool shared = objectives[i].make != make_aot && objectives[i].make != make_prior;
    if (!shared) {
        prefopt_trainer *trainer = NULL;
        prefopt_train_options o = train_defaults();
        o.micro_batch = 2;
        FAILS(PREFOPT_ERR_ARGUMENT, "micro_batch is 2",
              objectives[i].make(&trainer, &s, s.w.policy, &o));
    }
    for (int64_t batch = 0; batch <= 4 && shared; batch += 4) {
        double whole[64] = {0}, parts[64] = {0};
        prefopt_progress at, in;
        int64_t n = parameters_of(s.w.policy).n + 1;
        run(&s, i, batch, 0, whole, &at);
        int64_t rows = objectives[i].make == make_soft_rl ? 3 : batch;
        bool sampled = objectives[i].make == make_online || objectives[i].make == make_ppo ||
                       objectives[i].make == make_rounds ||
                       objectives[i].make == make_policy_gradient;
        static const int64_t micro[] = {1, 2, 3, 100};
        for (size_t k = 0; k < sizeof micro / sizeof *micro; k++)
            for (int64_t keeps = 0; keeps <= 1000; keeps += 1000) {
                run_micro(&s, i, batch, keeps, micro[k], parts, &in);
                if (objectives[i].by_rows) /* or its samples are not scored again */
                    ck_assert_int_eq(spy.again, 0);
                if (rows > 0 && !sampled)
                    ck_assert_int_eq(spy.calls, 3 * ((rows + micro[k] - 1) / micro[k]));
                else if (!sampled) /* what was sampled was scored in other calls */
                    ck_assert((spy.calls > 3) == (micro[k] < 100));
                for (int64_t j = 0; j < n; j++)
                    same_number(whole[j], parts[j], "a parameter", i);
                same_numbers(&at, &in, i);
            }
    }
    setting_free(&s);
    prefopt_context_destroy(context);
}
END_TEST

/* The loss of the whole data, and that of held-out data, are scored in pieces too: each distinct
 * sequence once. */
START_TEST(losses_go_in_pieces)
{
    prefopt_context *context = test_context(1);
    setting s = setting_new(context);
    double whole = NAN, pieces = NAN, held_out = NAN;
    for (int64_t micro = 0; micro <= 3; micro++) {
        prefopt_policy *policy = tabular_policy(&s.w);
        randomise(policy, 8, 0.5);
        watch(policy, 0);
        prefopt_train_options o = train_defaults();
        o.micro_batch = micro;
        prefopt_trainer *trainer;
        OK(make_dpo(&trainer, &s, policy, &o));
        OK(prefopt_trainer_set_evaluation(trainer, s.margined, s.reference, NULL));
        spy.scored = 0;
        OK(prefopt_trainer_loss(trainer, &pieces));
        ck_assert_int_eq(spy.scored, trainer->rows->n_distinct);
        prefopt_progress last = {.struct_size = sizeof last};
        spy.scored = 0;
        spy.score_calls = 0;
        OK(prefopt_trainer_run(trainer, 0, &last));
        ck_assert_int_eq(spy.scored, trainer->evaluation->held_out->rows->n_distinct);
        ck_assert_int_le(micro > 0 ? spy.score_calls : 1, micro > 0 ? (8 + micro - 1) / micro : 1);
        ck_assert((spy.score_calls > 1) == (micro > 0));
        if (micro == 0) {
            whole = pieces;
            held_out = last.eval_loss;
        }
        CLOSE(pieces, whole, 1e-13);
        CLOSE(last.eval_loss, held_out, 1e-13);
        prefopt_trainer_destroy(trainer);
        prefopt_policy_destroy(policy);
    }
    setting_free(&s);
    prefopt_context_destroy(context);
}
END_TEST

/* A reward model of its own that can tell. */
START_TEST(rewards_split_too)
{
    prefopt_context *context = test_context(1);
    setting s = setting_new(context);
    prefopt_parameters p[2] = {{.struct_size = sizeof *p}, {.struct_size = sizeof *p}};
    prefopt_reward *reward[2];
    for (int64_t i = 0; i < 2; i++) {
        prefopt_trainer *trainer;
        memset(&spy, 0, sizeof spy);
        spy.keeps = 3;
        reward[i] = tabular_reward(&s.w, s.w.all);
        reward[i]->extras = i == 1 ? &spy_extras : NULL;
        OK(prefopt_trainer_create_reward(&trainer, reward[i], s.pairs, NULL, NULL));
        OK(prefopt_trainer_run(trainer, 4, NULL));
        OK(prefopt_reward_parameters(reward[i], &p[i]));
        ck_assert((spy.asked > 0) == (i == 1));
        prefopt_trainer_destroy(trainer);
    }
    for (int64_t k = 0; k < p[0].n; k++)
        CLOSE(((double *)p[0].value)[k], ((double *)p[1].value)[k], 1e-12);
    prefopt_reward_destroy(reward[0]);
    prefopt_reward_destroy(reward[1]);
    setting_free(&s);
    prefopt_context_destroy(context);
}
END_TEST

/* Runs of 2, 3, 4, 1 and 9 sequences of one prompt each: no run that fits is cut. */
START_TEST(prompts_stay_together)
{
    enum { RUNS = 5, N = 19 };
    static const int64_t runs[RUNS] = {2, 3, 4, 1, 9};
    int32_t tokens[2 * N];
    int64_t offsets[N + 1] = {0}, prompt_len[N], n = 0;
    for (int32_t r = 0; r < RUNS; r++)
        for (int64_t j = 0; j < runs[r]; j++, n++) {
            tokens[2 * n] = r;
            tokens[2 * n + 1] = (int32_t)j;
            prompt_len[n] = 1;
            offsets[n + 1] = 2 * (n + 1);
        }
    ck_assert_int_eq(n, N);
    prefopt_sequences in = {.struct_size = sizeof in,
                            .n = N,
                            .tokens = tokens,
                            .offsets = offsets,
                            .prompt_len = prompt_len};
    prefopt_policy policy = {.extras = &spy_extras};
    pf_trained model = {.policy = &policy};
    /* keeps, then the parts. */
    static const int64_t expected[][8] = {{1, 1, 1, 1, 1, 1, 1, 1},
                                          {3, 2, 3, 3, 3, 3, 3, 2},
                                          {4, 2, 3, 4, 4, 4, 2},
                                          {5, 5, 5, 5, 4},
                                          {6, 5, 6, 6, 2},
                                          {9, 9, 1, 9},
                                          {10, 10, 9},
                                          {19, 19},
                                          {50, 19}};
    for (size_t c = 0; c < sizeof expected / sizeof *expected; c++) {
        spy.keeps = expected[c][0];
        int64_t first = 0;
        for (int64_t k = 1; k < 8 && first < N && expected[c][k] > 0; k++) {
            prefopt_sequences rest = pf_sequences_part(&in, first, N - first);
            int64_t part = pf_trained_keeps(&model, &rest);
            ck_assert_msg(part == expected[c][k], "keeps %lld, from %lld on: a part of %lld",
                          (long long)spy.keeps, (long long)first, (long long)part);
            first += part;
        }
    }
    for (int64_t i = 0; i < N; i++) /* nothing is shared where there is no prompt */
        prompt_len[i] = 0;
    spy.keeps = 4;
    ck_assert_int_eq(pf_trained_keeps(&model, &in), 4);
}
END_TEST

/* Three pairs of each of four prompts, 8 distinct sequences at most kept: parts end with their
 * prompt. */
START_TEST(rows_of_a_prompt_stay_together)
{
    prefopt_context *context = test_context(1);
    world w = world_new(context, 4, 3, 2, -1);
    prefopt_dataset *pairs;
    OK(prefopt_dataset_create(&pairs, context));
    for (int64_t i = 0; i < 12; i++)
        add_pair(&w, pairs, i / 3, 2 * (i % 3), 2 * (i % 3) + 1, 1, 1, 0);
    prefopt_trainer *trainer;
    watch(w.policy, 8);
    prefopt_dpo_options simpo = dpo_of(PREFOPT_DPO_SIMPO);
    OK(prefopt_trainer_create_dpo(&trainer, w.policy, NULL, pairs, &simpo, NULL));
    OK(prefopt_trainer_run(trainer, 1, NULL));
    ck_assert_int_eq(spy.calls, 4); /* not 3: 8 + 8 + 8 would cut two prompts */
    ck_assert_int_eq(spy.largest, 6);
    ck_assert_int_eq(spy.cut, 0);
    ck_assert_int_eq(spy.scored, 24);
    ck_assert_int_eq(spy.backward, 24);
    ck_assert_int_eq(spy.again, 0);
    prefopt_trainer_destroy(trainer);
    prefopt_dataset_destroy(pairs);
    world_free(&w);
    prefopt_context_destroy(context);
}
END_TEST

/* A bad row is named by its number in the data, and the step leaves everything as it was. */
START_TEST(bad_rows_are_named_in_parts)
{
    prefopt_context *context = test_context(1);
    setting s = setting_new(context);
    double *logp = all_logps(&s.w, s.w.policy);
    prefopt_sequences all = sequences_of(s.w.all);
    int64_t per_prompt = s.w.n / s.w.n_prompts;
    for (int64_t i = 0; i < per_prompt; i++) /* the first prompt: all on completion 0 */
        logp[i] = i == 0 ? 0 : -INFINITY;
    OK(prefopt_policy_set_logprobs(s.w.policy, &all, logp));
    watch(s.w.policy, 2);
    prefopt_dataset *pairs;
    OK(prefopt_dataset_create(&pairs, context));
    for (int64_t i = 0; i < 5; i++)
        add_pair(&s.w, pairs, i == 3 ? 0 : 1 + i % 2, 2, 0, 1, 1, 0);
    prefopt_trainer *trainer;
    OK(prefopt_trainer_create_dpo(&trainer, s.w.policy, s.reference, pairs, NULL, NULL));
    prefopt_parameters p = parameters_of(s.w.policy);
    double *before = malloc((size_t)p.n * sizeof *before);
    memcpy(before, p.value, (size_t)p.n * sizeof *before);
    FAILS(PREFOPT_ERR_NUMERIC, "row 3", prefopt_trainer_run(trainer, 1, NULL));
    ck_assert_mem_eq(before, p.value, (size_t)p.n * sizeof *before);
    ck_assert_int_eq(trainer->batch.n, 5);
    ck_assert_double_eq(trainer->share, 1);
    free(before);
    free(logp);
    prefopt_trainer_destroy(trainer);
    prefopt_dataset_destroy(pairs);
    setting_free(&s);
    prefopt_context_destroy(context);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("parts");
    TCase *tcase = tcase_create("parts");
    tcase_set_timeout(tcase, 0);
    tcase_add_loop_test(tcase, parts_equal_the_whole, 0, N_OBJECTIVES);
    tcase_add_loop_test(tcase, small_batches_equal_the_whole, 0, N_OBJECTIVES);
    tcase_add_test(tcase, losses_go_in_pieces);
    tcase_add_test(tcase, rewards_split_too);
    tcase_add_test(tcase, prompts_stay_together);
    tcase_add_test(tcase, rows_of_a_prompt_stay_together);
    tcase_add_test(tcase, bad_rows_are_named_in_parts);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
