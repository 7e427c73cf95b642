/* Whether a finite optimum exists is decided before a fit, and said with the sequences' names. */
#include "train/pf_train.h"
#include "train_test.h"

typedef struct {
    int64_t chosen, rejected;
    double weight, label;
} game;

static prefopt_dataset *pairs_of(const world *w, const game *games, size_t n)
{
    prefopt_dataset *pairs;
    OK(prefopt_dataset_create(&pairs, w->context));
    for (size_t i = 0; i < n; i++)
        add_pair(w, pairs, 0, games[i].chosen, games[i].rejected, games[i].weight, games[i].label,
                 0);
    return pairs;
}
#define PAIRS(w, ...)                                                                              \
    pairs_of(w, (const game[]){__VA_ARGS__}, sizeof((const game[]){__VA_ARGS__}) / sizeof(game))

/* The tabular reward and DPO on the tabular policy say the same of the same pairs. */
static void both_say(const world *w, prefopt_dataset *pairs, const char *text)
{
    prefopt_reward *reward = tabular_reward(w, pairs), *implicit, *local;
    prefopt_reference *reference;
    prefopt_policy *policy = tabular_policy(w);
    prefopt_trainer *trainers[4];
    OK(prefopt_reference_create_uniform(&reference, w->context, &w->space));
    OK(prefopt_reward_create_implicit(&implicit, policy, reference, 0.5));
    OK(prefopt_reward_create_local(&local, policy));
    OK(prefopt_trainer_create_reward(&trainers[0], reward, pairs, NULL, NULL));
    OK(prefopt_trainer_create_dpo(&trainers[1], policy, reference, pairs, NULL, NULL));
    OK(prefopt_trainer_create_reward(&trainers[2], implicit, pairs, NULL, NULL));
    OK(prefopt_trainer_create_reward(&trainers[3], local, pairs, NULL, NULL));
    for (int32_t i = 0; i < 4; i++) {
        if (text == NULL) {
            OK(prefopt_trainer_fit(trainers[i], NULL));
        } else {
            prefopt_progress result = {.struct_size = sizeof result, .loss = 42};
            FAILS(PREFOPT_ERR_UNBOUNDED, text, prefopt_trainer_fit(trainers[i], &result));
            ck_assert_double_eq(result.loss, 42);
            ck_assert_ptr_nonnull(strstr(prefopt_last_error(), "ridge"));
        }
        prefopt_trainer_destroy(trainers[i]);
    }
    prefopt_reward_destroy(implicit);
    prefopt_reward_destroy(local);
    prefopt_reward_destroy(reward);
    prefopt_reference_destroy(reference);
    prefopt_policy_destroy(policy);
    prefopt_dataset_destroy(pairs);
}

START_TEST(win_graphs)
{
    prefopt_context *context = test_context(1);
    world w = world_new(context, 1, 5, 1, -1);
    both_say(&w, PAIRS(&w, {0, 1, 1, 1}, {1, 2, 1, 1}, {2, 0, 1, 1}), NULL); /* a circle */
    both_say(&w, PAIRS(&w, {0, 1, 1, 0.9}, {1, 2, 1, 0.5}), NULL);           /* soft: both ways */
    both_say(&w, PAIRS(&w, {0, 1, 1, 1}), "(prompt [90], completion [0]) never lose");
    both_say(&w, PAIRS(&w, {0, 1, 1, 0}), "(prompt [90], completion [1]) never lose");
    /* 3 loses to the circle alone. */
    both_say(&w, PAIRS(&w, {0, 1, 1, 1}, {1, 2, 1, 1}, {2, 0, 1, 1}, {1, 3, 1, 1}),
             "(prompt [90], completion [3]) never win");
    /* Two circles that never met: the smaller one is named. */
    both_say(&w, PAIRS(&w, {0, 1, 1, 0.5}, {2, 3, 1, 0.5}, {3, 4, 1, 0.5}),
             "(prompt [90], completion [0]), (prompt [90], completion [1]) are never compared");
    /* A pair of weight 0 is no evidence, nor are those that are only in such pairs. */
    both_say(&w, PAIRS(&w, {0, 1, 1, 0.5}, {2, 3, 0, 1}), NULL);
    both_say(&w, PAIRS(&w, {0, 1, 1, 1}, {1, 0, 0, 1}), "never lose");
    world_free(&w);
    prefopt_context_destroy(context);
}
END_TEST

/* Prompts stand each on its own. */
START_TEST(prompts_are_separate)
{
    prefopt_context *context = test_context(1);
    world w = world_new(context, 2, 3, 1, -1);
    prefopt_dataset *pairs;
    OK(prefopt_dataset_create(&pairs, context));
    add_pair(&w, pairs, 0, 0, 1, 1, 0.5, 0);
    add_pair(&w, pairs, 1, 0, 2, 1, 0.3, 0);
    both_say(&w, pairs, NULL);
    OK(prefopt_dataset_create(&pairs, context));
    add_pair(&w, pairs, 0, 0, 1, 1, 0.5, 0);
    add_pair(&w, pairs, 1, 0, 2, 1, 1, 0);
    both_say(&w, pairs, "(prompt [91], completion [0]) never lose");
    world_free(&w);
    prefopt_context_destroy(context);
}
END_TEST

/* Each way out that the text names works; variants with a finite optimum are not refused. */
START_TEST(ways_out)
{
    prefopt_context *context = test_context(1);
    world w = world_new(context, 1, 3, 1, -1);
    prefopt_dataset *pairs = PAIRS(&w, {0, 1, 1, 1}, {1, 2, 1, 1});
    prefopt_reference *reference;
    OK(prefopt_reference_create_uniform(&reference, context, &w.space));
    for (int32_t way = 0; way < 5; way++) {
        prefopt_dpo_options dpo;
        prefopt_train_options o = train_defaults();
        OK(prefopt_dpo_options_init(&dpo, sizeof dpo));
        if (way == 0)
            o.ridge = 0.1;
        if (way == 1)
            o.score_ridge = 0.1;
        if (way == 2)
            dpo.label_smoothing = 0.1;
        if (way == 3)
            dpo.variant = PREFOPT_DPO_IPO_SUM;
        if (way == 4)
            dpo.variant = PREFOPT_DPO_SPPO;
        prefopt_trainer *trainer;
        OK(prefopt_trainer_create_dpo(&trainer, w.policy, reference, pairs, &dpo, &o));
        OK(prefopt_trainer_fit(trainer, NULL));
        prefopt_trainer_destroy(trainer);
    }
    /* Steps are not refused: early stopping is a way out as well. */
    prefopt_trainer *trainer;
    OK(prefopt_trainer_create_dpo(&trainer, w.policy, reference, pairs, NULL, NULL));
    OK(prefopt_trainer_run(trainer, 3, NULL));
    prefopt_trainer_destroy(trainer);
    prefopt_reference_destroy(reference);
    prefopt_dataset_destroy(pairs);
    world_free(&w);
    prefopt_context_destroy(context);
}
END_TEST

/* Completions that the reference rules out have a constant loss, hence no part. */
START_TEST(reference_of_zero_has_no_part)
{
    prefopt_context *context = test_context(1);
    world w = world_new(context, 1, 3, 1, -1);
    prefopt_sequences in = sequences_of(w.all);
    const double logp[] = {log(0.5), log(0.5), -INFINITY};
    prefopt_reference *reference;
    OK(prefopt_reference_create_fixed(&reference, context, &in, logp));
    prefopt_dataset *pairs = PAIRS(&w, {0, 1, 1, 0.6}, {2, 0, 1, 1});
    prefopt_trainer *trainer;
    OK(prefopt_trainer_create_dpo(&trainer, w.policy, reference, pairs, NULL, NULL));
    OK(prefopt_trainer_fit(trainer, NULL));
    double *p = all_logps(&w, w.policy);
    CLOSE(0.1 * (p[0] - p[1]), log(0.6 / 0.4), 1e-8);
    free(p);
    prefopt_trainer_destroy(trainer);
    prefopt_reference_destroy(reference);
    prefopt_dataset_destroy(pairs);
    world_free(&w);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(tie_parameters)
{
    prefopt_context *context = test_context(1);
    world w = world_new(context, 1, 4, 1, -1);
    static const struct {
        const char *text; /* NULL: finite */
        game games[5];
        size_t n;
    } cases[] = {
        {NULL, {{0, 1, 1, 1}, {0, 1, 1, 0.5}, {0, 1, 1, 0}}, 3},
        {"no pair is a tie", {{0, 1, 1, 1}, {0, 1, 1, 0}}, 2},
        {"every pair is a tie", {{0, 1, 1, 0.5}}, 1},
        /* A win across a tie: strengths equal, the tie parameter finite? No: 0 over 1 once, tied
         * once. u = 1 step, t = step / 2 makes the win a full step up and the tie one step. */
        {"levels", {{0, 1, 1, 1}, {0, 1, 1, 0.5}}, 2},
        {"levels", {{0, 1, 1, 1}, {1, 2, 1, 1}, {0, 1, 1, 0.5}, {1, 2, 1, 0.5}}, 4},
        /* Two wins up and one tie all the way: two steps do not fit into one. */
        {NULL, {{0, 1, 1, 1}, {1, 2, 1, 1}, {0, 2, 1, 0.5}}, 3},
        {"never lose", {{0, 1, 1, 1}, {1, 2, 1, 1}, {1, 2, 1, 0.5}, {2, 1, 1, 1}}, 4},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int32_t linear = 0; linear < 2; linear++) {
            prefopt_dataset *pairs = pairs_of(&w, cases[i].games, cases[i].n);
            prefopt_sequences in = sequences_of(w.all);
            const double one_hot[16] = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1};
            prefopt_reward *reward = tabular_reward(&w, pairs);
            if (linear) {
                prefopt_reward_destroy(reward);
                OK(prefopt_reward_create_linear(&reward, context, &in, 4, one_hot));
            }
            for (int32_t model = PREFOPT_TIE_DAVIDSON; model <= PREFOPT_TIE_RAO_KUPPER; model++) {
                prefopt_bt_options bt;
                prefopt_trainer *trainer;
                OK(prefopt_bt_options_init(&bt, sizeof bt));
                bt.tie_model = model;
                OK(prefopt_trainer_create_reward(&trainer, reward, pairs, &bt, NULL));
                if (cases[i].text == NULL) {
                    OK(prefopt_trainer_fit(trainer, NULL));
                } else {
                    int32_t status = prefopt_trainer_fit(trainer, NULL);
                    ck_assert_msg(status == PREFOPT_ERR_UNBOUNDED, "case %zu, linear %d: %s", i,
                                  linear, prefopt_last_error());
                    const char *text = cases[i].text;
                    if (linear && strstr(text, "pair is") == NULL)
                        text = "separate";
                    ck_assert_msg(strstr(prefopt_last_error(), text) != NULL, "case %zu: %s", i,
                                  prefopt_last_error());
                }
                prefopt_trainer_destroy(trainer);
            }
            prefopt_reward_destroy(reward);
            prefopt_dataset_destroy(pairs);
        }
    world_free(&w);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(linear_rewards)
{
    prefopt_context *context = test_context(1);
    world w = world_new(context, 1, 4, 1, -1);
    prefopt_sequences in = sequences_of(w.all);
    /* Two features; differences: 0-1: (1, 0), 2-3: (0, 1), 0-2: (1, -1), 1-3: (0, 0). */
    const double features[] = {1, 0, 0, 0, 0, 1, 0, 0};
    static const struct {
        const char *text;
        game games[4];
        size_t n;
    } cases[] = {
        {"separate", {{0, 1, 1, 1}}, 1},
        {"2 of 2", {{0, 1, 1, 1}, {2, 3, 1, 1}}, 2},
        {NULL, {{0, 1, 1, 0.9}}, 1},
        {NULL, {{0, 1, 1, 1}, {1, 0, 1, 1}}, 2},
        {"row 1", {{0, 1, 1, 0.5}, {2, 3, 1, 1}}, 2}, /* quasi-complete */
        {NULL, {{0, 1, 1, 1}, {2, 0, 1, 1}, {3, 2, 1, 1}}, 3},
        {NULL, {{1, 3, 1, 1}, {0, 1, 1, 0.5}}, 2}, /* no difference: no evidence */
        {"separate", {{0, 1, 1, 1}, {2, 0, 1, 1}}, 2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        prefopt_dataset *pairs = pairs_of(&w, cases[i].games, cases[i].n);
        prefopt_reward *reward;
        prefopt_trainer *trainer;
        OK(prefopt_reward_create_linear(&reward, context, &in, 2, features));
        OK(prefopt_trainer_create_reward(&trainer, reward, pairs, NULL, NULL));
        if (cases[i].text == NULL) {
            OK(prefopt_trainer_fit(trainer, NULL));
        } else {
            int32_t status = prefopt_trainer_fit(trainer, NULL);
            ck_assert_msg(status == PREFOPT_ERR_UNBOUNDED, "case %zu", i);
            ck_assert_msg(strstr(prefopt_last_error(), cases[i].text) != NULL, "case %zu: %s", i,
                          prefopt_last_error());
        }
        prefopt_trainer_destroy(trainer);
        prefopt_reward_destroy(reward);
        prefopt_dataset_destroy(pairs);
    }
    world_free(&w);
    prefopt_context_destroy(context);
}
END_TEST

/* Log-linear policies, and the rewards they carry, are linear too: log Z cancels in differences. */
START_TEST(loglinear_policies)
{
    prefopt_context *context = test_context(1);
    world w = world_new(context, 1, 3, 1, -1);
    prefopt_sequences in = sequences_of(w.all);
    const double features[] = {1, 0, 2}, base[] = {-1, -2, -0.5};
    prefopt_reference *reference;
    OK(prefopt_reference_create_uniform(&reference, context, &w.space));
    for (int32_t finite = 0; finite < 2; finite++) {
        /* 0 over 1 and 2 over 0 both push theta up; 0 over 2 pushes it down. */
        prefopt_dataset *pairs =
            finite ? PAIRS(&w, {0, 1, 1, 1}, {0, 2, 1, 1}) : PAIRS(&w, {0, 1, 1, 1}, {2, 0, 1, 1});
        for (int32_t road = 0; road < 2; road++) {
            prefopt_policy *policy;
            prefopt_reward *implicit;
            prefopt_trainer *trainer;
            OK(prefopt_policy_create_loglinear(&policy, context, &w.space, &in, 1, features, base));
            OK(prefopt_reward_create_implicit(&implicit, policy, reference, 0.1));
            if (road == 0)
                OK(prefopt_trainer_create_dpo(&trainer, policy, reference, pairs, NULL, NULL));
            else
                OK(prefopt_trainer_create_reward(&trainer, implicit, pairs, NULL, NULL));
            if (finite) {
                OK(prefopt_trainer_fit(trainer, NULL));
                /* d1 = theta + 1, d2 = -theta - 0.5: equal shares at sigma(-b d1) = sigma(-b d2) */
                double theta = *(double *)parameters_of(policy).value;
                CLOSE(theta + 1, -theta - 0.5, 1e-7);
            } else {
                FAILS(PREFOPT_ERR_UNBOUNDED, "separate", prefopt_trainer_fit(trainer, NULL));
            }
            prefopt_trainer_destroy(trainer);
            prefopt_reward_destroy(implicit);
            prefopt_policy_destroy(policy);
        }
        prefopt_dataset_destroy(pairs);
    }
    prefopt_reference_destroy(reference);
    world_free(&w);
    prefopt_context_destroy(context);
}
END_TEST

/* Random data made so that the answer is known: separable by a hidden direction (some rows right on
 * its edge), or with X' w = 0 for a positive w. */
START_TEST(separation_is_decided)
{
    enum { M = 60, K = 7 };
    prefopt_context *context = test_context(1);
    double x[(M + 1) * K], normal[M * K], direction[K], hidden[K];
    for (uint64_t seed = 0; seed < 200; seed++) {
        int32_t separable = seed % 2 == 0;
        int64_t k = 2 + (int64_t)(seed % (K - 1)), m = M;
        OK(prefopt_random_normal(seed, 1, 0, M * K, normal));
        OK(prefopt_random_normal(seed, 2, 0, K, hidden));
        double last[K] = {0}, norm = 0;
        for (int64_t i = 0; i < k; i++)
            norm += hidden[i] * hidden[i];
        for (int64_t j = 0; j < M; j++) {
            double *row = x + j * k, along = 0;
            memcpy(row, normal + j * K, (size_t)k * sizeof *row);
            for (int64_t i = 0; i < k; i++)
                along += row[i] * hidden[i];
            /* Separable: most rows lie in the plane that hidden is normal to, the rest above. */
            double shift = !separable ? 0 : j % 7 != 0 ? -along : along < 0 ? -2 * along : 0;
            for (int64_t i = 0; i < k; i++)
                row[i] += shift * hidden[i] / norm;
        }
        if (!separable) {
            for (int64_t j = 0; j < M; j++)
                for (int64_t i = 0; i < k; i++)
                    last[i] -= (0.01 + uniform(seed, (uint64_t)j)) * x[j * k + i];
            memcpy(x + m++ * k, last, (size_t)k * sizeof *last);
        }
        for (int64_t j = 0; j < m; j++) {
            double length = 0;
            for (int64_t i = 0; i < k; i++)
                length += x[j * k + i] * x[j * k + i];
            for (int64_t i = 0; i < k; i++)
                x[j * k + i] /= sqrt(length);
        }
        bool found = !separable;
        OK(pf_separation(context, m, k, x, &found, direction));
        ck_assert_msg(found == separable, "seed %d, %d features", (int)seed, (int)k);
        double worst = 0, best = 0, length = 0;
        for (int64_t i = 0; i < k; i++)
            length += direction[i] * direction[i];
        for (int64_t j = 0; found && j < m; j++) {
            double along = 0;
            for (int64_t i = 0; i < k; i++)
                along += x[j * k + i] * direction[i] / sqrt(length);
            worst = fmin(worst, along);
            best = fmax(best, along);
        }
        if (found)
            ck_assert(worst > -1e-8 && best > 1e-3);
    }
    bool found = true;
    OK(pf_separation(context, 0, 3, x, &found, direction));
    ck_assert(!found);
    prefopt_context_destroy(context);
}
END_TEST

static prefopt_dataset *rankings_of(const world *w, const int32_t *items, const int64_t *lengths,
                                    size_t n)
{
    prefopt_dataset *data;
    OK(prefopt_dataset_create(&data, w->context));
    for (size_t i = 0; i < n; i++) {
        prefopt_row row;
        int32_t prompt = 90;
        const int64_t offsets[] = {0, 1, 2, 3, 4, 5};
        OK(prefopt_row_init(&row, sizeof row));
        row.kind = PREFOPT_ROW_RANKING;
        row.prompt = &prompt;
        row.prompt_len = 1;
        row.n_completions = lengths[i];
        row.completions = items;
        row.completion_offsets = offsets;
        row.weight = 1 + (double)i;
        OK(prefopt_dataset_append(data, &row));
        items += lengths[i];
    }
    return data;
}

/* Rankings: one always first has no finite strength; else both roads meet as with pairs. */
START_TEST(rankings)
{
    prefopt_context *context = test_context(1);
    world w = world_new(context, 1, 4, 1, -1);
    static const int32_t first_wins[] = {0, 1, 2, 3, 0, 3, 2, 1};
    static const int32_t mixed[] = {0, 1, 2, 3, 3, 2, 1, 0, 2, 0};
    both_say(&w, rankings_of(&w, first_wins, (int64_t[]){4, 4}, 2),
             "(prompt [90], completion [0]) never lose");
    prefopt_dataset *data = rankings_of(&w, mixed, (int64_t[]){4, 4, 2}, 3);
    prefopt_policy *policy = tabular_policy(&w);
    randomise(policy, 3, 1);
    prefopt_reference *reference;
    OK(prefopt_reference_freeze(&reference, policy));
    prefopt_reward *reward = tabular_reward(&w, w.all);
    prefopt_trainer *direct, *by_reward;
    OK(prefopt_trainer_create_dpo(&direct, policy, reference, data, NULL, NULL));
    OK(prefopt_trainer_create_reward(&by_reward, reward, data, NULL, NULL));
    OK(prefopt_trainer_fit(direct, NULL));
    OK(prefopt_trainer_fit(by_reward, NULL));
    double *ref = all_refs(&w, reference), *score = all_scores(&w, reward);
    double *logp = all_logps(&w, policy), soft[4], a, b;
    soft_optimal(&w, ref, score, 0.1, soft);
    ck_assert_double_lt(total_variation(&w, logp, soft), 1e-8);
    OK(prefopt_trainer_loss(direct, &a));
    OK(prefopt_trainer_loss(by_reward, &b));
    CLOSE(a, b, 1e-12);
    /* The strengths' own fit of the same rankings. */
    prefopt_rankings table = {.struct_size = sizeof table,
                              .n_items = 4,
                              .n = 3,
                              .offsets = (const int64_t[]){0, 4, 8, 10},
                              .items = mixed,
                              .weight = (const double[]){1, 2, 3}};
    prefopt_strengths *fit;
    double theta[4];
    OK(prefopt_strengths_fit(&fit, context, NULL, &table, NULL));
    OK(prefopt_strengths_values(fit, theta, NULL));
    for (int32_t i = 1; i < 4; i++)
        CLOSE(score[i] - score[0], theta[i] - theta[0], 1e-8);
    prefopt_strengths_destroy(fit);
    free(ref);
    free(score);
    free(logp);
    prefopt_trainer_destroy(direct);
    prefopt_trainer_destroy(by_reward);
    prefopt_reward_destroy(reward);
    prefopt_reference_destroy(reference);
    prefopt_policy_destroy(policy);
    prefopt_dataset_destroy(data);
    world_free(&w);
    prefopt_context_destroy(context);
}
END_TEST

/* A tabular reward with a ridge is the strengths' fit with the same ridge. */
START_TEST(ridge_is_that_of_strengths)
{
    prefopt_context *context = test_context(1);
    world w = world_new(context, 1, 4, 1, -1);
    prefopt_dataset *pairs =
        PAIRS(&w, {0, 1, 3, 1}, {1, 2, 2, 1}, {0, 2, 1, 0.5}, {2, 3, 4, 1}, {3, 0, 0.5, 1});
    const int32_t first[] = {0, 1, 0, 2, 3}, second[] = {1, 2, 2, 3, 0};
    const double weight[] = {3, 2, 1, 4, 0.5}, label[] = {1, 1, 0.5, 1, 1};
    prefopt_comparisons table = {.struct_size = sizeof table,
                                 .n_items = 4,
                                 .n = 5,
                                 .first = first,
                                 .second = second,
                                 .weight = weight,
                                 .label = label};
    for (int32_t model = PREFOPT_TIE_NONE; model <= PREFOPT_TIE_RAO_KUPPER; model++) {
        prefopt_strengths_options so;
        OK(prefopt_strengths_options_init(&so, sizeof so));
        so.ridge = 0.7;
        so.tie_model = model;
        prefopt_strengths *fit;
        double theta[4];
        OK(prefopt_strengths_fit(&fit, context, &table, NULL, &so));
        OK(prefopt_strengths_values(fit, theta, NULL));
        prefopt_bt_options bt;
        prefopt_train_options o = train_defaults();
        OK(prefopt_bt_options_init(&bt, sizeof bt));
        bt.tie_model = model;
        o.ridge = 0.7;
        prefopt_reward *reward = tabular_reward(&w, w.all);
        prefopt_trainer *trainer;
        OK(prefopt_trainer_create_reward(&trainer, reward, pairs, &bt, &o));
        OK(prefopt_trainer_fit(trainer, NULL));
        double *score = all_scores(&w, reward);
        for (int32_t i = 0; i < 4; i++)
            CLOSE(score[i], theta[i], 1e-8);
        if (model != PREFOPT_TIE_NONE) {
            prefopt_strengths_summary summary = {.struct_size = sizeof summary};
            double log_tie;
            OK(prefopt_strengths_summarise(fit, &summary));
            OK(prefopt_trainer_log_tie(trainer, &log_tie));
            CLOSE(log_tie, summary.log_tie, 1e-7);
        }
        free(score);
        prefopt_strengths_destroy(fit);
        prefopt_trainer_destroy(trainer);
        prefopt_reward_destroy(reward);
    }
    prefopt_dataset_destroy(pairs);
    world_free(&w);
    prefopt_context_destroy(context);
}
END_TEST

TEST_MAIN("existence", win_graphs, prompts_are_separate, ways_out, reference_of_zero_has_no_part,
          tie_parameters, linear_rewards, loglinear_policies, separation_is_decided, rankings,
          ridge_is_that_of_strengths)
