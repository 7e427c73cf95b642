/* The numbers of an evaluation of held-out data, for every objective, against the loss calls. */
#include <stdbool.h>

#include "evaluation_test.h"

enum { MOST = 256 };

static prefopt_dataset *held_out_of(const setting *s, make_fn *make)
{
    if (make == make_dpo || make == make_prior)
        return some_rows(s->margined); /* the trainer's own rows have none */
    if (make == make_ranked_dpo || make == make_ranked_reward)
        return some_rows(s->rankings);
    if (make == make_mle)
        return some_rows(s->completions);
    if (make == make_reward)
        return some_rows(s->ties);
    return make == make_aot ? plain_pairs(&s->w) : random_pairs(&s->w, 77, 3);
}

typedef struct {
    double loss, accuracy, margin;
} numbers;

/* scale * (score - ref) of pairs. */
static void count_pairs(const prefopt_columns *c, const double *score, double scale, numbers *out)
{
    double total = 0;
    out->accuracy = out->margin = 0;
    for (int64_t i = 0; i < c->n_rows; i++)
        for (int64_t j = c->first[i]; j + 1 < c->first[i + 1]; j++) {
            double d = scale * (score[j] - score[j + 1]);
            total += c->weight[i];
            out->accuracy += d > 0 ? c->weight[i] : 0;
            out->margin += c->weight[i] * d;
        }
    out->accuracy /= total;
    out->margin /= total;
}

static void split(const prefopt_sequences *in, const double *score, double *chosen,
                  double *rejected, int64_t *len)
{
    for (int64_t i = 0; i < in->n; i++) {
        *(i % 2 == 0 ? &chosen[i / 2] : &rejected[i / 2]) = score[i];
        len[i % 2 * MOST + i / 2] = in->offsets[i + 1] - in->offsets[i] - in->prompt_len[i];
    }
}

static numbers of_pairs(const prefopt_dpo_options *dpo, const prefopt_bt_options *bt,
                        const prefopt_dataset *data, const double *score, const double *ref)
{
    double c[MOST], r[MOST], rc[MOST], rr[MOST], own[MOST];
    int64_t len[2 * MOST];
    prefopt_sequences in = sequences_of(data);
    prefopt_columns columns = columns_of(data);
    ck_assert_int_le(in.n, MOST);
    if (ref != NULL)
        split(&in, ref, rc, rr, len);
    split(&in, score, c, r, len);
    for (int64_t i = 0; i < in.n; i++)
        own[i] = score[i] - (ref != NULL ? ref[i] : 0);
    prefopt_pair_scores scores = {.struct_size = sizeof scores,
                                  .n = columns.n_rows,
                                  .chosen = c,
                                  .rejected = r,
                                  .ref_chosen = ref != NULL ? rc : NULL,
                                  .ref_rejected = ref != NULL ? rr : NULL};
    bool simpo = dpo != NULL && dpo->variant == PREFOPT_DPO_SIMPO;
    if (dpo == NULL || dpo->variant != PREFOPT_DPO_AOT) {
        scores.weight = columns.weight;
        scores.label = columns.label;
        scores.margin = simpo || dpo == NULL ? NULL : columns.margin;
    }
    scores.len_chosen = simpo ? len : NULL;
    scores.len_rejected = simpo ? len + MOST : NULL;
    prefopt_pair_loss loss = {.struct_size = sizeof loss};
    if (dpo != NULL)
        OK(prefopt_loss_dpo(dpo, &scores, &loss));
    else
        OK(prefopt_loss_bradley_terry(bt, &scores, &loss));
    numbers out = {.loss = loss.mean};
    count_pairs(&columns, own, dpo != NULL ? dpo->beta : 1, &out);
    return out;
}

static numbers of_rankings(const prefopt_dataset *data, const double *score, const double *ref,
                           double beta)
{
    prefopt_columns columns = columns_of(data);
    double own[MOST];
    prefopt_pl_options pl;
    OK(prefopt_pl_options_init(&pl, sizeof pl));
    pl.beta = beta;
    prefopt_ranking_scores in = {.struct_size = sizeof in,
                                 .n = columns.n_rows,
                                 .offsets = columns.first,
                                 .score = score,
                                 .ref_logp = ref,
                                 .weight = columns.weight};
    prefopt_ranking_loss loss = {.struct_size = sizeof loss};
    OK(prefopt_loss_plackett_luce(&pl, &in, &loss));
    for (int64_t i = 0; i < columns.n_sequences; i++)
        own[i] = score[i] - (ref != NULL ? ref[i] : 0);
    numbers out = {.loss = loss.mean};
    count_pairs(&columns, own, beta, &out);
    return out;
}

static numbers of_completions(const prefopt_dataset *data, const double *logp)
{
    prefopt_columns c = columns_of(data);
    numbers out = {.accuracy = NAN, .margin = NAN};
    double total = 0;
    for (int64_t i = 0; i < c.n_rows; i++) {
        double sum = 0;
        for (int64_t j = c.first[i]; j < c.first[i + 1]; j++)
            sum += logp[j];
        total += c.weight[i];
        out.loss -= c.weight[i] * sum / (double)(c.first[i + 1] - c.first[i]);
    }
    out.loss /= total;
    return out;
}

static numbers expected(const setting *s, make_fn *make, prefopt_policy *policy,
                        const prefopt_trainer *trainer, const prefopt_dataset *held_out)
{
    double logp[MOST], ref[MOST], score[MOST];
    prefopt_sequences in = sequences_of(held_out);
    ck_assert_int_le(in.n, MOST);
    OK(prefopt_policy_logprobs(policy, &in, logp, NULL));
    OK(prefopt_reference_logprobs(s->reference, &in, ref));
    prefopt_dpo_options dpo = dpo_of(make == make_simpo ? PREFOPT_DPO_SIMPO
                                     : make == make_aot ? PREFOPT_DPO_AOT
                                                        : PREFOPT_DPO_SIGMOID);
    if (make == make_mle)
        return of_completions(held_out, logp);
    if (make == make_ranked_dpo)
        return of_rankings(held_out, logp, ref, dpo.beta);
    if (make == make_ranked_reward) {
        prefopt_reward *local;
        OK(prefopt_reward_create_local(&local, policy));
        OK(prefopt_reward_scores(local, &in, score));
        prefopt_reward_destroy(local);
        return of_rankings(held_out, score, NULL, 1);
    }
    if (make != make_reward)
        return of_pairs(&dpo, NULL, held_out, logp, make == make_simpo ? NULL : ref);
    prefopt_bt_options bt;
    OK(prefopt_bt_options_init(&bt, sizeof bt));
    bt.tie_model = PREFOPT_TIE_DAVIDSON;
    bt.centre = 0.1;
    OK(prefopt_trainer_log_tie(trainer, &bt.log_tie));
    for (int64_t i = 0; i < in.n; i++)
        score[i] = 0.5 * (logp[i] - ref[i]);
    return of_pairs(NULL, &bt, held_out, score, NULL);
}

static const prefopt_reference *reference_of(const setting *s, make_fn *make)
{
    return make == make_mle || make == make_reward || make == make_ranked_reward ||
                   make == make_simpo
               ? NULL
               : s->reference;
}

static bool evaluates(make_fn *make)
{
    return make != make_soft_rl && make != make_policy_gradient && make != make_ppo;
}

START_TEST(numbers_are_those_of_the_losses)
{
    make_fn *make = objectives[_i].make;
    prefopt_context *context = test_context(1);
    setting s = setting_new(context);
    prefopt_policy *policy = tabular_policy(&s.w);
    randomise(policy, 8, 0.5);
    prefopt_train_options o = quick();
    prefopt_trainer *trainer;
    OK(make(&trainer, &s, policy, &o));
    prefopt_dataset *held_out = held_out_of(&s, make);
    if (!evaluates(make)) {
        FAILS(PREFOPT_ERR_UNSUPPORTED, "held-out",
              prefopt_trainer_set_evaluation(trainer, held_out, NULL, NULL));
    } else {
        OK(prefopt_trainer_set_evaluation(trainer, held_out, reference_of(&s, make), NULL));
        double losses[2];
        for (int k = 0; k < 2; k++) {
            prefopt_progress last = {.struct_size = sizeof last};
            OK(prefopt_trainer_run(trainer, 0, &last));
            numbers e = expected(&s, make, policy, trainer, held_out);
            CLOSE(last.eval_loss, e.loss, 1e-12);
            ck_assert_int_eq(last.eval_step, 5 * k);
            ck_assert(isnan(e.accuracy) == isnan(last.eval_accuracy));
            if (!isnan(e.accuracy)) {
                CLOSE(last.eval_accuracy, e.accuracy, 1e-12);
                CLOSE(last.eval_margin, e.margin, 1e-12);
            }
            losses[k] = last.eval_loss;
            OK(prefopt_trainer_run(trainer, 5, &last));
            ck_assert_double_eq(last.eval_loss, losses[k]); /* every is 100: not again */
            ck_assert_int_eq(last.eval_step, 5 * k);
        }
        ck_assert_double_ne(losses[0], losses[1]);
    }
    prefopt_dataset_destroy(held_out);
    prefopt_trainer_destroy(trainer);
    prefopt_policy_destroy(policy);
    setting_free(&s);
    prefopt_context_destroy(context);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("evaluation_losses");
    TCase *tcase = tcase_create("evaluation_losses");
    tcase_set_timeout(tcase, 0);
    tcase_add_loop_test(tcase, numbers_are_those_of_the_losses, 0, N_OBJECTIVES);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
