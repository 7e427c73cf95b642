/* Content hashes of models: the same for the same content, another after any change of it. */
#include "model/model_test.h"

static const int32_t prompt[] = {2, 1};

static list all_of(const prefopt_space *space)
{
    list l = list_new();
    list_add_all(&l, space, prompt, 2);
    return l;
}

static uint64_t of_policy(prefopt_policy *policy)
{
    uint64_t hash = 0, again = 0;
    OK(prefopt_policy_hash(policy, &hash));
    OK(prefopt_policy_hash(policy, &again));
    ck_assert_uint_eq(hash, again);
    ck_assert_uint_ne(hash, 0);
    /* A snapshot's is the same. */
    prefopt_reference *reference = NULL;
    OK(prefopt_reference_freeze(&reference, policy));
    OK(prefopt_reference_hash(reference, &again));
    ck_assert_uint_eq(hash, again);
    prefopt_reference_destroy(reference);
    return hash;
}

static uint64_t of_reward(prefopt_reward *reward)
{
    uint64_t hash = 0;
    OK(prefopt_reward_hash(reward, &hash));
    ck_assert_uint_ne(hash, 0);
    return hash;
}

static prefopt_transformer_config tiny(void)
{
    prefopt_transformer_config c;
    OK(prefopt_transformer_config_init(&c, sizeof c));
    c.vocab = 11;
    c.n_layers = 2;
    c.width = 16;
    c.n_heads = 2;
    c.ff_width = 24;
    c.max_positions = 12;
    c.rotary_fraction = 0.5;
    return c;
}

static prefopt_policy *transformer(prefopt_context *context, prefopt_transformer_config c,
                                   uint64_t seed)
{
    prefopt_policy *policy = NULL;
    OK(prefopt_policy_create_transformer(&policy, context, &c, seed));
    return policy;
}

static uint64_t of_shape(prefopt_context *context, prefopt_transformer_config c)
{
    prefopt_policy *policy = transformer(context, c, 1);
    uint64_t hash = of_policy(policy);
    prefopt_policy_destroy(policy);
    return hash;
}

/* Each parameter in turn by its last bit: the hash changes, and comes back. */
static void check_parameters(prefopt_policy *policy, prefopt_reward *reward)
{
    prefopt_parameters p = {.struct_size = sizeof p};
    if (policy != NULL)
        OK(prefopt_policy_parameters(policy, &p));
    else
        OK(prefopt_reward_parameters(reward, &p));
    size_t size = p.dtype == PREFOPT_F64 ? 8 : 4;
    uint64_t hash = 0, now = 0;
    for (int64_t k = -1; k < p.n; k++) {
        unsigned char *byte = (unsigned char *)p.value + (size_t)(k < 0 ? 0 : k) * size;
        if (k >= 0)
            *byte ^= 1;
        OK(policy != NULL ? prefopt_policy_hash(policy, &now) : prefopt_reward_hash(reward, &now));
        if (k < 0) {
            hash = now;
            continue;
        }
        ck_assert_msg(now != hash, "parameter %lld does not count", (long long)k);
        *byte ^= 1;
    }
    OK(policy != NULL ? prefopt_policy_hash(policy, &now) : prefopt_reward_hash(reward, &now));
    ck_assert_uint_eq(now, hash);
}

START_TEST(every_parameter_counts)
{
    prefopt_context *context = test_context(1);
    prefopt_space space = space_of(3, 2, -1);
    list l = all_of(&space);
    double features[9 * 2];
    OK(prefopt_random_normal(1, 0, 0, 18, features));
    prefopt_policy *policy[3];
    OK(prefopt_policy_create_tabular(&policy[0], context, &space, &l.view));
    OK(prefopt_policy_create_loglinear(&policy[1], context, &space, &l.view, 2, features, NULL));
    policy[2] = transformer(context, tiny(), 3);
    prefopt_reward *reward[5];
    prefopt_reference *reference;
    OK(prefopt_reference_create_uniform(&reference, context, &space));
    OK(prefopt_reward_create_tabular(&reward[0], context, &l.view));
    OK(prefopt_reward_create_linear(&reward[1], context, &l.view, 2, features));
    OK(prefopt_reward_from_policy(&reward[2], policy[2]));
    OK(prefopt_reward_create_implicit(&reward[3], policy[0], reference, 0.5));
    OK(prefopt_reward_create_local(&reward[4], policy[1]));
    uint64_t all[9];
    for (int k = 0; k < 3; k++) {
        check_parameters(policy[k], NULL);
        all[k] = of_policy(policy[k]);
    }
    for (int k = 0; k < 5; k++) {
        check_parameters(NULL, reward[k]);
        all[3 + k] = of_reward(reward[k]);
    }
    OK(prefopt_reference_hash(reference, &all[8]));
    for (int a = 0; a < 9; a++)
        for (int b = 0; b < a; b++)
            ck_assert_uint_ne(all[a], all[b]);
    for (int k = 0; k < 5; k++)
        prefopt_reward_destroy(reward[k]);
    for (int k = 0; k < 3; k++)
        prefopt_policy_destroy(policy[k]);
    prefopt_reference_destroy(reference);
    list_free(&l);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(what_is_no_parameter_counts)
{
    prefopt_context *context = test_context(1);
    prefopt_transformer_config c = tiny();
    uint64_t hash = of_shape(context, c);
    ck_assert_uint_eq(of_shape(context, c), hash);
    prefopt_policy *recomputing = transformer(context, c, 1);
    OK(prefopt_policy_set_recompute(recomputing, 1));
    ck_assert_uint_eq(of_policy(recomputing), hash);
    prefopt_policy_destroy(recomputing);
    /* Shapes with the same number of parameters, and the same numbers in them. */
    prefopt_transformer_config other[8];
    for (int k = 0; k < 8; k++)
        other[k] = c;
    other[0].n_heads = 4;
    other[1].eos = 3;
    other[2].max_positions = 13;
    other[3].rotary_base = 10001;
    other[4].rotary_fraction = 1;
    other[5].norm_epsilon = 2e-5;
    other[6].activation = PREFOPT_GELU_TANH;
    other[7].parallel_residual = 0;
    for (int k = 0; k < 8; k++)
        ck_assert_msg(of_shape(context, other[k]) != hash, "shape %d does not count", k);

    /* Which token may follow which. */
    uint8_t allowed[11 * 11];
    memset(allowed, 1, sizeof allowed);
    prefopt_policy *masked = transformer(context, c, 1);
    OK(prefopt_policy_set_transitions(masked, allowed));
    uint64_t with_all = of_policy(masked);
    allowed[5 * 11 + 7] = 0;
    OK(prefopt_policy_set_transitions(masked, allowed));
    ck_assert_uint_ne(of_policy(masked), with_all);
    OK(prefopt_policy_set_transitions(masked, NULL));
    ck_assert_uint_eq(of_policy(masked), hash);
    prefopt_policy_destroy(masked);

    /* Features, base, listed sequences, the space, beta. */
    prefopt_space space = space_of(3, 2, -1), longer = space_of(3, 3, -1);
    list l = all_of(&space), swapped = list_new();
    for (int64_t i = 0; i < l.view.n; i++)
        list_add(&swapped, prompt, 1, l.tokens + l.offsets[i] + l.prompt_len[i], 2);
    double features[9] = {1, 2, 3}, base[9] = {-1, -2};
    prefopt_policy *p[5];
    OK(prefopt_policy_create_loglinear(&p[0], context, &space, &l.view, 1, features, NULL));
    OK(prefopt_policy_create_loglinear(&p[1], context, &space, &l.view, 1, features, base));
    features[8] = 1;
    OK(prefopt_policy_create_loglinear(&p[2], context, &space, &l.view, 1, features, NULL));
    OK(prefopt_policy_create_loglinear(&p[3], context, &space, &swapped.view, 1, features, NULL));
    OK(prefopt_policy_create_tabular(&p[4], context, &space, &swapped.view));
    prefopt_reference *uniform[2];
    OK(prefopt_reference_create_uniform(&uniform[0], context, &space));
    OK(prefopt_reference_create_uniform(&uniform[1], context, &longer));
    prefopt_reward *r[3];
    OK(prefopt_reward_create_implicit(&r[0], p[4], uniform[0], 0.5));
    OK(prefopt_reward_create_implicit(&r[1], p[4], uniform[0], 0.25));
    OK(prefopt_reward_create_implicit(&r[2], p[4], uniform[1], 0.5));
    uint64_t all[10];
    for (int k = 0; k < 5; k++)
        all[k] = of_policy(p[k]);
    for (int k = 0; k < 3; k++)
        all[5 + k] = of_reward(r[k]);
    for (int k = 0; k < 2; k++)
        OK(prefopt_reference_hash(uniform[k], &all[8 + k]));
    for (int a = 0; a < 10; a++)
        for (int b = 0; b < a; b++)
            ck_assert_msg(all[a] != all[b], "%d and %d have one hash", a, b);
    for (int k = 0; k < 3; k++)
        prefopt_reward_destroy(r[k]);
    for (int k = 0; k < 2; k++)
        prefopt_reference_destroy(uniform[k]);
    for (int k = 0; k < 5; k++)
        prefopt_policy_destroy(p[k]);
    list_free(&l);
    list_free(&swapped);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(threads_do_not_matter)
{
    prefopt_transformer_config c = tiny();
    c.vocab = 9000; /* more than one chunk of 256 KiB */
    uint64_t hash[3];
    for (int32_t threads = 1; threads <= 3; threads++) {
        prefopt_context *context = test_context(threads);
        hash[threads - 1] = of_shape(context, c);
        prefopt_context_destroy(context);
    }
    ck_assert_uint_eq(hash[0], hash[1]);
    ck_assert_uint_eq(hash[0], hash[2]);
}
END_TEST

START_TEST(a_snapshot_keeps_its_own)
{
    prefopt_context *context = test_context(1);
    prefopt_policy *policy = transformer(context, tiny(), 1);
    prefopt_reference *early = NULL, *late = NULL;
    uint64_t before = of_policy(policy), after, frozen;
    OK(prefopt_reference_freeze(&early, policy)); /* its hash is not asked for yet */
    prefopt_parameters p = {.struct_size = sizeof p};
    OK(prefopt_policy_parameters(policy, &p));
    ((float *)p.value)[5] += 1;
    OK(prefopt_policy_updated(policy));
    OK(prefopt_reference_freeze(&late, policy));
    after = of_policy(policy);
    ck_assert_uint_ne(before, after);
    OK(prefopt_reference_hash(early, &frozen));
    ck_assert_uint_eq(frozen, before);
    OK(prefopt_reference_hash(late, &frozen));
    ck_assert_uint_eq(frozen, after);
    prefopt_reference_destroy(early);
    prefopt_reference_destroy(late);
    prefopt_policy_destroy(policy);
    prefopt_context_destroy(context);
}
END_TEST

/* ---------------------------------------------------------------- the caller's own kinds */

static double theta[3] = {1, 2, 3}, gradient[3];

static int32_t own_parameters(void *payload, prefopt_parameters *out)
{
    (void)payload;
    out->dtype = PREFOPT_F64;
    out->n = 3;
    out->value = theta;
    out->grad = gradient;
    return PREFOPT_OK;
}

static int32_t own_logprobs(void *payload, const prefopt_sequences *in, double *sequence_logp,
                            double *token_logp)
{
    (void)payload, (void)token_logp;
    for (int64_t i = 0; i < in->n; i++)
        sequence_logp[i] = -1;
    return PREFOPT_OK;
}

static int32_t own_scores(void *payload, const prefopt_sequences *in, double *score)
{
    (void)payload;
    for (int64_t i = 0; i < in->n; i++)
        score[i] = 1;
    return PREFOPT_OK;
}

static int32_t own_clone(void *payload, void **copy)
{
    *copy = payload;
    return PREFOPT_OK;
}

START_TEST(custom_kinds)
{
    prefopt_context *context = test_context(1);
    prefopt_policy_callbacks p = {
        .struct_size = sizeof p, .logprobs = own_logprobs, .clone = own_clone};
    prefopt_reward_callbacks r = {.struct_size = sizeof r, .scores = own_scores};
    prefopt_policy *policy;
    prefopt_reward *reward;
    prefopt_reference *reference;
    uint64_t hash = 7;
    OK(prefopt_policy_create_custom(&policy, context, NULL, &p, NULL));
    OK(prefopt_reward_create_custom(&reward, context, &r, NULL));
    FAILS(PREFOPT_ERR_UNSUPPORTED, "no parameters callback", prefopt_policy_hash(policy, &hash));
    FAILS(PREFOPT_ERR_UNSUPPORTED, "no parameters callback", prefopt_reward_hash(reward, &hash));
    prefopt_policy_destroy(policy);
    prefopt_reward_destroy(reward);
    p.parameters = own_parameters;
    r.parameters = own_parameters;
    OK(prefopt_policy_create_custom(&policy, context, NULL, &p, NULL));
    OK(prefopt_reward_create_custom(&reward, context, &r, NULL));
    OK(prefopt_reference_freeze(&reference, policy));
    FAILS(PREFOPT_ERR_UNSUPPORTED, "no content hash", prefopt_reference_hash(reference, &hash));
    ck_assert_uint_eq(hash, 7); /* failures write nothing */
    check_parameters(policy, NULL);
    check_parameters(NULL, reward);
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_policy_hash(NULL, &hash));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_policy_hash(policy, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_reward_hash(NULL, &hash));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_reward_hash(reward, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_reference_hash(NULL, &hash));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_reference_hash(reference, NULL));
    prefopt_reference_destroy(reference);
    prefopt_policy_destroy(policy);
    prefopt_reward_destroy(reward);
    prefopt_context_destroy(context);
}
END_TEST

TEST_MAIN("model_hash", every_parameter_counts, what_is_no_parameter_counts, threads_do_not_matter,
          a_snapshot_keeps_its_own, custom_kinds)
