/* The sampler over a policy of the caller's own: what it is asked, and its failures. */
#include "sampler_test.h"

typedef struct {
    int64_t calls, asked[300]; /* sequences a call */
    double scale;              /* of each next-token probability */
    int32_t status;
} own_policy;

static int32_t own_logprobs(void *payload, const prefopt_sequences *in, double *sequence_logp,
                            double *token_logp)
{
    (void)payload;
    (void)token_logp;
    for (int64_t i = 0; i < in->n; i++)
        sequence_logp[i] = log(0.5) * (double)(in->offsets[i + 1] - in->offsets[i]);
    return PREFOPT_OK;
}

static int32_t own_next(void *payload, const prefopt_sequences *in, double *next_logp)
{
    own_policy *own = payload;
    if (own->calls < 300)
        own->asked[own->calls] = in->n;
    own->calls++;
    for (int64_t i = 0; i < 2 * in->n; i++)
        next_logp[i] = log(0.5 * own->scale);
    return own->status;
}

static prefopt_policy *own_create(prefopt_context *context, own_policy *own, int64_t horizon,
                                  bool next)
{
    prefopt_space space = make_space(2, horizon, -1);
    prefopt_policy_callbacks callbacks = {.struct_size = sizeof callbacks,
                                          .logprobs = own_logprobs,
                                          .next_logprobs = next ? own_next : NULL};
    prefopt_policy *policy;
    OK(prefopt_policy_create_custom(&policy, context, &space, &callbacks, own));
    return policy;
}

START_TEST(a_prefix_is_asked_for_once)
{
    prefopt_context *context = test_context(1);
    prefopt_dataset *prompts = three_prompts(context), *samples;
    own_policy own = {.scale = 1};
    prefopt_policy *policy = own_create(context, &own, 200, true);
    prefopt_sampler_options o = options_of(64);
    OK(prefopt_sample(&samples, policy, prompts, &o));
    ck_assert_int_eq(own.calls, 200);
    ck_assert_int_eq(own.asked[0], PROMPTS);
    ck_assert_int_eq(own.asked[1], 2 * PROMPTS);
    ck_assert_int_eq(own.asked[2], 4 * PROMPTS);
    ck_assert_int_eq(own.asked[199], 64 * PROMPTS);
    prefopt_row row = row_of(samples, 2);
    for (int64_t j = 0; j < 64; j++) {
        ck_assert_int_eq(row.completion_offsets[j + 1], 200 * (j + 1));
        CLOSE(row.logp[j], 200 * log(0.5), 1e-13);
    }
    prefopt_dataset_destroy(samples);
    own.calls = 0;
    o.temperature = 0;
    OK(prefopt_sample(&samples, policy, prompts, &o));
    ck_assert_int_eq(own.asked[199], PROMPTS);
    prefopt_dataset_destroy(samples);
    prefopt_policy_destroy(policy);
    prefopt_dataset_destroy(prompts);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(a_policy_that_fails)
{
    prefopt_context *context = test_context(1);
    prefopt_dataset *prompts = three_prompts(context), *samples = prompts;
    own_policy own = {.scale = 0.9};
    prefopt_policy *policy = own_create(context, &own, 3, true);
    FAILS(PREFOPT_ERR_NUMERIC, "row 0, after 0 tokens: the policy's next-token probabilities",
          prefopt_sample(&samples, policy, prompts, NULL));
    own.scale = 1;
    own.status = 77;
    FAILS(PREFOPT_ERR_CALLBACK, "next_logprobs", prefopt_sample(&samples, policy, prompts, NULL));
    own.status = PREFOPT_STOPPED;
    ck_assert_int_eq(prefopt_sample(&samples, policy, prompts, NULL), PREFOPT_STOPPED);
    own.status = PREFOPT_OK;
    own.scale = NAN;
    FAILS(PREFOPT_ERR_NUMERIC, "nan", prefopt_sample(&samples, policy, prompts, NULL));
    own.scale = 1;
    ck_assert(samples == prompts);
    OK(prefopt_sample(&samples, policy, prompts, NULL));
    ck_assert_int_eq(row_of(samples, 0).n_completions, 2);
    prefopt_dataset_destroy(samples);
    prefopt_policy_destroy(policy);

    policy = own_create(context, &own, 3, false);
    FAILS(PREFOPT_ERR_UNSUPPORTED, "next_logprobs",
          prefopt_sample(&samples, policy, prompts, NULL));
    /* An enumeration does without. */
    prefopt_sampler_options o = options_of(2);
    o.without_replacement = 1;
    prefopt_dataset *none;
    OK(prefopt_dataset_create(&none, context));
    OK(prefopt_sample(&samples, policy, none, &o));
    ck_assert_int_eq(prefopt_dataset_size(samples), 0);
    prefopt_dataset_destroy(samples);
    prefopt_dataset_destroy(none);
    prefopt_policy_destroy(policy);

    policy = own_create(context, &own, 20, false);
    FAILS(PREFOPT_ERR_UNSUPPORTED, "1048576 completions",
          prefopt_sample(&samples, policy, prompts, &o));
    prefopt_policy_destroy(policy);
    prefopt_dataset_destroy(prompts);
    prefopt_context_destroy(context);
}
END_TEST

TEST_MAIN("sampler_custom", a_prefix_is_asked_for_once, a_policy_that_fails)
