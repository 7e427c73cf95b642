/* NaN and infinity while a transformer is trained: the step and the row are named, and model,
 * optimiser and best parameters are as before the step. */
#include "small_transformer.h"
#include "train/pf_evaluation.h"
#include "train_test.h"

enum { PAIRS = 6, VOCAB = 16, BAD_ROW = 4, BAD_TOKEN = 9, HELD_OUT_TOKEN = 10 };

static prefopt_policy *wide_policy(prefopt_context *context)
{
    prefopt_transformer_config c = small_config();
    c.vocab = VOCAB;
    c.init_scale = 0.3;
    prefopt_policy *policy = NULL;
    OK(prefopt_policy_create_transformer(&policy, context, &c, 5));
    return policy;
}

/* BAD_TOKEN is in row BAD_ROW alone, HELD_OUT_TOKEN in row 1 of the held-out pairs alone; both with
 * a token after them, or their embedding would have no part. */
static prefopt_dataset *small_pairs(prefopt_context *context, bool held_out)
{
    prefopt_dataset *data = NULL;
    OK(prefopt_dataset_create(&data, context));
    for (int32_t i = 0; i < (held_out ? 3 : PAIRS); i++) {
        int32_t prompt[] = {i, held_out ? 12 : 11}, chosen[] = {(i + 1) % 8, 3};
        int32_t rejected[] = {(i + 2) % 8, 4, 5};
        if (!held_out && i == BAD_ROW)
            rejected[1] = BAD_TOKEN;
        if (held_out && i == 1)
            chosen[0] = HELD_OUT_TOKEN;
        OK(prefopt_dataset_append_pair(data, prompt, 2, chosen, 2, rejected, 3, 1, 1, 0));
    }
    return data;
}

typedef struct {
    prefopt_context *context;
    prefopt_policy *policy;
    prefopt_reward *reward; /* NULL: DPO */
    prefopt_reference *reference;
    prefopt_dataset *pairs, *held_out;
    prefopt_trainer *trainer;
} setting;

static setting setting_new(bool rewards, int64_t byte_budget)
{
    setting s = {0};
    prefopt_context_options c;
    OK(prefopt_context_options_init(&c, sizeof c));
    c.threads = 2;
    if (byte_budget > 0)
        c.byte_budget = byte_budget;
    OK(prefopt_context_create(&s.context, &c));
    s.policy = wide_policy(s.context);
    s.pairs = small_pairs(s.context, false);
    s.held_out = small_pairs(s.context, true);
    OK(prefopt_reference_freeze(&s.reference, s.policy));
    prefopt_train_options o = train_defaults();
    o.weight_decay = 0.1;
    if (rewards) {
        OK(prefopt_reward_from_policy(&s.reward, s.policy));
        OK(prefopt_trainer_create_reward(&s.trainer, s.reward, s.pairs, NULL, &o));
    } else {
        OK(prefopt_trainer_create_dpo(&s.trainer, s.policy, s.reference, s.pairs, NULL, &o));
    }
    prefopt_evaluation_options e;
    OK(prefopt_evaluation_options_init(&e, sizeof e));
    e.every = 2;
    OK(prefopt_trainer_set_evaluation(s.trainer, s.held_out, rewards ? NULL : s.reference, &e));
    return s;
}

static void setting_free(setting *s)
{
    prefopt_trainer_destroy(s->trainer);
    prefopt_reward_destroy(s->reward);
    prefopt_reference_destroy(s->reference);
    prefopt_policy_destroy(s->policy);
    prefopt_dataset_destroy(s->pairs);
    prefopt_dataset_destroy(s->held_out);
    prefopt_context_destroy(s->context);
}

static float *values(const setting *s, int64_t *n)
{
    prefopt_parameters p = {.struct_size = sizeof p};
    if (s->reward != NULL)
        OK(prefopt_reward_parameters(s->reward, &p));
    else
        OK(prefopt_policy_parameters(s->policy, &p));
    *n = p.n;
    return p.value;
}

/* ---- all that a step may change */

typedef struct {
    int64_t n, step, steps, best_step, eval_step, waited;
    double moment_bound, best_loss;
    float *arrays; /* values, moments, best */
} state;

static state state_of(const setting *s)
{
    const pf_optimiser *o = &s->trainer->optimiser;
    const pf_evaluation *e = s->trainer->evaluation;
    state out = {.step = s->trainer->step,
                 .steps = o->steps,
                 .best_step = e->best_step,
                 .eval_step = e->step,
                 .waited = e->waited,
                 .moment_bound = o->moment_bound,
                 .best_loss = e->best.loss};
    const float *value = values(s, &out.n);
    const void *const from[] = {value, o->slots[0].first, o->slots[0].second, e->best_value};
    out.arrays = malloc(4 * (size_t)out.n * sizeof(float));
    for (int k = 0; k < 4; k++)
        memcpy(out.arrays + k * out.n, from[k], (size_t)out.n * sizeof(float));
    return out;
}

static void same_state(const setting *s, state *before)
{
    state now = state_of(s);
    ck_assert_int_eq(now.step, before->step);
    ck_assert_int_eq(now.steps, before->steps);
    ck_assert_int_eq(now.best_step, before->best_step);
    ck_assert_int_eq(now.eval_step, before->eval_step);
    ck_assert_int_eq(now.waited, before->waited);
    ck_assert_double_eq(now.moment_bound, before->moment_bound);
    ck_assert_double_eq(now.best_loss, before->best_loss);
    ck_assert_mem_eq(now.arrays, before->arrays, 4 * (size_t)now.n * sizeof(float));
    free(now.arrays);
    free(before->arrays);
}

/* A number of token's embedding, which is the first tensor. Written behind the model's back:
 * prefopt_policy_updated refuses NaN. */
static float *embedding_of(const setting *s, int64_t token)
{
    int64_t n;
    return values(s, &n) + token * 16 + 3;
}

/* NaN in the weights makes the loss NaN: the row that has the token is named. Once the number is
 * put back, training goes on as if nothing had happened. */
static void nan_in_training(bool rewards, int64_t byte_budget)
{
    setting s = setting_new(rewards, byte_budget), plain = setting_new(rewards, byte_budget);
    OK(prefopt_trainer_run(s.trainer, 3, NULL));
    for (int k = 0; k < 2; k++) {
        float *number = embedding_of(&s, BAD_TOKEN), was = *number;
        *number = k == 0 ? NAN : INFINITY;
        state before = state_of(&s);
        prefopt_progress last = {.struct_size = sizeof last, .step = 77}, told = last;
        FAILS(PREFOPT_ERR_NUMERIC, "step 1 of 5 (4 since the trainer was made): row 4",
              prefopt_trainer_run(s.trainer, 5, &last));
        ck_assert_mem_eq(&last, &told, sizeof last);
        same_state(&s, &before);
        *embedding_of(&s, BAD_TOKEN) = was;
    }
    OK(prefopt_trainer_run(s.trainer, 4, NULL));
    OK(prefopt_trainer_run(plain.trainer, 7, NULL));
    state end = state_of(&plain);
    same_state(&s, &end);
    setting_free(&s);
    setting_free(&plain);
}

START_TEST(the_row_of_a_nan_is_named)
{
    nan_in_training(false, 0);
    nan_in_training(false, 1); /* row by row */
    nan_in_training(true, 0);
    nan_in_training(true, 1);
}
END_TEST

/* A held-out completion that has probability 0 makes the loss infinite. The step stands when the
 * evaluation after it fails; the best is that of the one before. */
START_TEST(a_held_out_infinity_is_told)
{
    setting s = setting_new(false, 0);
    OK(prefopt_trainer_run(s.trainer, 3, NULL));
    uint8_t allowed[VOCAB * VOCAB];
    memset(allowed, 1, sizeof allowed);
    allowed[HELD_OUT_TOKEN * VOCAB + 3] = 0;
    OK(prefopt_policy_set_transitions(s.policy, allowed));
    int64_t n, best_step = s.trainer->evaluation->best_step;
    values(&s, &n);
    float *best = malloc((size_t)n * sizeof *best);
    memcpy(best, s.trainer->evaluation->best_value, (size_t)n * sizeof *best);
    FAILS(PREFOPT_ERR_NUMERIC,
          "dpo: after step 1 of 5 (4 since the trainer was made): held_out: row 1",
          prefopt_trainer_run(s.trainer, 5, NULL));
    ck_assert_int_eq(s.trainer->step, 4);
    ck_assert_int_eq(s.trainer->optimiser.steps, 4);
    ck_assert_int_eq(s.trainer->evaluation->best_step, best_step);
    ck_assert_int_eq(s.trainer->evaluation->step, 2);
    ck_assert_mem_eq(best, s.trainer->evaluation->best_value, (size_t)n * sizeof *best);
    OK(prefopt_policy_set_transitions(s.policy, NULL));
    OK(prefopt_trainer_run(s.trainer, 1, NULL)); /* evaluates step 4 first */
    ck_assert_int_eq(s.trainer->evaluation->step, 4);
    free(best);
    setting_free(&s);
}
END_TEST

/* A step that would leave the floats is not taken. */
START_TEST(a_parameter_that_would_overflow)
{
    setting s = setting_new(false, 0);
    OK(prefopt_trainer_run(s.trainer, 2, NULL));
    s.trainer->options.learning_rate = 1e60;
    state before = state_of(&s);
    FAILS(PREFOPT_ERR_NUMERIC, "dpo: step 1 of 5 (3 since the trainer was made): a parameter",
          prefopt_trainer_run(s.trainer, 5, NULL));
    same_state(&s, &before);
    setting_free(&s);
}
END_TEST

/* All pairs but one are right, by far at this beta, and have no gradient; that one's is more than a
 * float holds, its loss is finite. */
START_TEST(the_row_of_an_infinite_gradient_is_named)
{
    for (int budget = 0; budget < 2; budget++) {
        setting s = setting_new(false, budget);
        prefopt_sequences in = sequences_of(s.pairs);
        double logp[2 * PAIRS];
        OK(prefopt_policy_logprobs(s.policy, &in, logp, NULL));
        prefopt_dataset *pairs;
        OK(prefopt_dataset_create(&pairs, s.context));
        for (int64_t i = 0; i < PAIRS; i++) {
            bool swap = (logp[2 * i] < logp[2 * i + 1]) != (i == BAD_ROW);
            int64_t c = 2 * i + swap, r = 2 * i + !swap;
            const int32_t *chosen = in.tokens + in.offsets[c],
                          *rejected = in.tokens + in.offsets[r];
            OK(prefopt_dataset_append_pair(pairs, chosen, 2, chosen + 2,
                                           in.offsets[c + 1] - in.offsets[c] - 2, rejected + 2,
                                           in.offsets[r + 1] - in.offsets[r] - 2, 1, 1, 0));
        }
        prefopt_dpo_options dpo;
        OK(prefopt_dpo_options_init(&dpo, sizeof dpo));
        dpo.variant = PREFOPT_DPO_CPO;
        dpo.beta = 1e42;
        prefopt_trainer_destroy(s.trainer);
        prefopt_train_options o = train_defaults();
        o.clip_norm = 1;
        OK(prefopt_trainer_create_dpo(&s.trainer, s.policy, NULL, pairs, &dpo, &o));
        prefopt_evaluation_options e;
        OK(prefopt_evaluation_options_init(&e, sizeof e));
        OK(prefopt_trainer_set_evaluation(s.trainer, s.held_out, NULL, &e));
        OK(prefopt_trainer_run(s.trainer, 0, NULL));
        state before = state_of(&s);
        FAILS(PREFOPT_ERR_NUMERIC,
              "dpo: step 1 of 5 (1 since the trainer was made): row 4: the norm of its gradient is",
              prefopt_trainer_run(s.trainer, 5, NULL));
        same_state(&s, &before);
        ck_assert_int_eq(s.trainer->batch.n, PAIRS);
        ck_assert_double_eq(s.trainer->share, 1);
        prefopt_dataset_destroy(pairs);
        setting_free(&s);
    }
}
END_TEST

TEST_MAIN("not finite", the_row_of_a_nan_is_named, a_held_out_infinity_is_told,
          a_parameter_that_would_overflow, the_row_of_an_infinite_gradient_is_named)
