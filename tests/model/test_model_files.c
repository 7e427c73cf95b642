/* Policies and rewards to a folder and back. */
#define _XOPEN_SOURCE 700
#include <unistd.h>

#include "model_test.h"

static prefopt_transformer_config tiny(void)
{
    prefopt_transformer_config c;
    OK(prefopt_transformer_config_init(&c, sizeof c));
    c.vocab = 11;
    c.n_layers = 2;
    c.width = 8;
    c.n_heads = 2;
    c.ff_width = 12;
    c.max_positions = 16;
    c.tied = 1;
    c.rotary_fraction = 0.5;
    c.activation = PREFOPT_GELU_TANH;
    c.parallel_residual = 0;
    c.eos = 3;
    return c;
}

typedef struct {
    char folder[64], path[128];
} place;

static place make_place(void)
{
    place p = {.folder = "/tmp/prefopt-model-XXXXXX"};
    ck_assert_ptr_nonnull(mkdtemp(p.folder));
    snprintf(p.path, sizeof p.path, "%s/saved", p.folder);
    return p;
}

static void remove_place(const place *p)
{
    char command[200];
    snprintf(command, sizeof command, "rm -rf %s", p->folder);
    ck_assert_int_eq(system(command), 0);
}

static double logp_of(prefopt_policy *policy)
{
    int32_t tokens[] = {1, 2, 3, 4, 5};
    list l = list_new();
    double logp;
    list_add(&l, tokens, 2, tokens + 2, 3);
    OK(prefopt_policy_logprobs(policy, &l.view, &logp, NULL));
    list_free(&l);
    return logp;
}

START_TEST(test_policy)
{
    prefopt_context *context = test_context(1);
    prefopt_transformer_config c = tiny(), back = {.struct_size = sizeof back};
    prefopt_policy *policy = NULL, *loaded = NULL;
    place p = make_place();
    FAILS(PREFOPT_ERR_IO, p.path, prefopt_policy_load(&loaded, context, p.path));
    ck_assert_ptr_null(loaded);
    OK(prefopt_policy_create_transformer(&policy, context, &c, 3));
    OK(prefopt_policy_save(policy, p.path));
    OK(prefopt_policy_load(&loaded, context, p.path));
    ck_assert_double_eq(logp_of(loaded), logp_of(policy));
    uint64_t hash, of_loaded; /* the same content elsewhere */
    OK(prefopt_policy_hash(policy, &hash));
    OK(prefopt_policy_hash(loaded, &of_loaded));
    ck_assert_uint_eq(hash, of_loaded);
    OK(prefopt_policy_transformer_config(loaded, &back));
    ck_assert_int_eq(back.eos, 3);
    ck_assert_int_eq(back.tied, 1);
    ck_assert_int_eq(back.activation, PREFOPT_GELU_TANH);
    ck_assert_int_eq(back.parallel_residual, 0);
    ck_assert_int_eq(back.max_positions, 16);
    prefopt_policy_destroy(loaded);
    /* Over the old one, rounded to 8 and to 11 bits. */
    const int32_t dtypes[] = {PREFOPT_BF16, PREFOPT_F16};
    for (int i = 0; i < 2; i++) {
        OK(prefopt_policy_save_as(policy, p.path, dtypes[i]));
        OK(prefopt_policy_load(&loaded, context, p.path));
        ck_assert(logp_of(loaded) != logp_of(policy));
        CLOSE(logp_of(loaded), logp_of(policy), i == 0 ? 2e-3 : 3e-4);
        prefopt_policy_destroy(loaded);
    }
    FAILS(PREFOPT_ERR_ARGUMENT, "0", prefopt_policy_save_as(policy, p.path, PREFOPT_F64));
    remove_place(&p);
    prefopt_policy_destroy(policy);
    prefopt_context_destroy(context);
}
END_TEST

START_TEST(test_reward)
{
    prefopt_context *context = test_context(1);
    prefopt_transformer_config c = tiny();
    prefopt_policy *policy = NULL;
    prefopt_reward *reward = NULL, *loaded = NULL, *table = NULL;
    place p = make_place();
    OK(prefopt_policy_create_transformer(&policy, context, &c, 3));
    OK(prefopt_reward_from_policy(&reward, policy));
    prefopt_parameters parameters = {.struct_size = sizeof parameters};
    OK(prefopt_reward_parameters(reward, &parameters));
    for (int64_t j = 1; j <= 8; j++)
        ((float *)parameters.value)[parameters.n - j] = (float)j;
    OK(prefopt_reward_updated(reward));
    OK(prefopt_reward_save(reward, p.path));
    OK(prefopt_reward_load(&loaded, context, p.path));
    int32_t tokens[] = {1, 2, 3, 4, 5};
    list l = list_new();
    double score, again;
    list_add(&l, tokens, 2, tokens + 2, 3);
    OK(prefopt_reward_scores(reward, &l.view, &score));
    OK(prefopt_reward_scores(loaded, &l.view, &again));
    ck_assert(score != 0);
    ck_assert_double_eq(score, again);
    /* Neither is taken for the other. */
    prefopt_policy *wrong = NULL;
    FAILS(PREFOPT_ERR_FORMAT, "this is a reward model, expected a language model",
          prefopt_policy_load(&wrong, context, p.path));
    OK(prefopt_policy_save(policy, p.path));
    prefopt_reward_destroy(loaded);
    FAILS(PREFOPT_ERR_FORMAT, "this is a language model, expected a reward model",
          prefopt_reward_load(&loaded, context, p.path));
    OK(prefopt_reward_create_tabular(&table, context, &l.view));
    FAILS(PREFOPT_ERR_UNSUPPORTED, "not a transformer", prefopt_reward_save(table, p.path));
    list_free(&l);
    remove_place(&p);
    prefopt_reward_destroy(table);
    prefopt_reward_destroy(reward);
    prefopt_policy_destroy(policy);
    prefopt_context_destroy(context);
}
END_TEST

TEST_MAIN("model files", test_policy, test_reward)
