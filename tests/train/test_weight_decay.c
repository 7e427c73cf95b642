/* Weight decay on a transformer: its norms and biases are left alone unless it is told otherwise.
 */
#include <stdbool.h>

#include "train_test.h"

enum { POLICY, REWARD, IMPLICIT, KINDS };

typedef struct {
    prefopt_context *context;
    prefopt_policy *policy;
    prefopt_reward *reward;
    prefopt_dataset *pairs;
    prefopt_reference *reference;
} setting;

static setting setting_new(int kind)
{
    setting s = {.context = test_context(2)};
    prefopt_transformer_config c;
    OK(prefopt_transformer_config_init(&c, sizeof c));
    c.vocab = 600; /* an embedding of more than one of the optimiser's chunks */
    c.n_layers = 2;
    c.width = 32;
    c.n_heads = 2;
    c.ff_width = 48;
    c.max_positions = 8;
    c.rotary_fraction = 0.5;
    c.init_scale = 0.1;
    OK(prefopt_policy_create_transformer(&s.policy, s.context, &c, 5));
    OK(prefopt_reference_freeze(&s.reference, s.policy));
    if (kind == REWARD)
        OK(prefopt_reward_from_policy(&s.reward, s.policy));
    if (kind == IMPLICIT)
        OK(prefopt_reward_create_implicit(&s.reward, s.policy, s.reference, 0.5));
    prefopt_parameters p = {.struct_size = sizeof p};
    if (kind == REWARD)
        OK(prefopt_reward_parameters(s.reward, &p));
    else
        OK(prefopt_policy_parameters(s.policy, &p));
    double *normal = malloc((size_t)p.n * sizeof *normal); /* no parameter is 0 or 1 */
    OK(prefopt_random_normal(3, 0, 0, p.n, normal));
    for (int64_t i = 0; i < p.n; i++)
        ((float *)p.value)[i] += (float)(0.1 * normal[i]);
    free(normal);
    OK(prefopt_dataset_create(&s.pairs, s.context));
    for (int32_t i = 0; i < 4; i++) {
        int32_t prompt[] = {i, 11}, chosen[] = {(i + 1) % 10, 3}, rejected[] = {(i + 2) % 10, 4, 5};
        OK(prefopt_dataset_append_pair(s.pairs, prompt, 2, chosen, 2, rejected, 3, 1, 1, 0));
    }
    return s;
}

static void setting_free(setting *s)
{
    prefopt_dataset_destroy(s->pairs);
    prefopt_reward_destroy(s->reward);
    prefopt_reference_destroy(s->reference);
    prefopt_policy_destroy(s->policy);
    prefopt_context_destroy(s->context);
}

/* The parameters after one step; free() them. */
static float *stepped(int kind, const prefopt_train_options *o, int64_t *n, float **start)
{
    setting s = setting_new(kind);
    prefopt_trainer *trainer;
    prefopt_parameters p = {.struct_size = sizeof p};
    if (s.reward != NULL)
        OK(prefopt_trainer_create_reward(&trainer, s.reward, s.pairs, NULL, o));
    else
        OK(prefopt_trainer_create_dpo(&trainer, s.policy, s.reference, s.pairs, NULL, o));
    if (s.reward != NULL)
        OK(prefopt_reward_parameters(s.reward, &p));
    else
        OK(prefopt_policy_parameters(s.policy, &p));
    size_t bytes = (size_t)p.n * sizeof(float);
    float *out = malloc(bytes);
    if (start != NULL)
        memcpy(*start = malloc(bytes), p.value, bytes);
    OK(prefopt_trainer_run(trainer, 1, NULL));
    if (s.reward != NULL)
        OK(prefopt_reward_parameters(s.reward, &p));
    else
        OK(prefopt_policy_parameters(s.policy, &p));
    memcpy(out, p.value, bytes);
    *n = p.n;
    prefopt_trainer_destroy(trainer);
    setting_free(&s);
    return out;
}

/* Which elements are of one-dimensional tensors. */
static bool *vectors(int kind, int64_t n)
{
    setting s = setting_new(kind);
    bool *is = calloc((size_t)n, sizeof *is);
    int64_t seen = 0;
    for (int64_t i = 0; seen < n; i++) {
        prefopt_tensor t = {.struct_size = sizeof t};
        if (kind == REWARD)
            OK(prefopt_reward_tensor(s.reward, i, &t));
        else
            OK(prefopt_policy_tensor(s.policy, i, &t));
        ck_assert_int_eq(t.offset, seen);
        seen += t.rows * t.columns;
        for (int64_t k = t.offset; k < seen; k++)
            is[k] = t.n_dims == 1;
    }
    setting_free(&s);
    return is;
}

static void check_step(int kind, int32_t optimiser)
{
    prefopt_train_options none = train_defaults();
    none.optimiser = optimiser;
    none.learning_rate = 1e-2;
    prefopt_train_options some = none, all = none;
    some.weight_decay = all.weight_decay = 0.5;
    all.decay_vectors = 1;
    int64_t n;
    float *start, *plain = stepped(kind, &none, &n, &start);
    float *spared = stepped(kind, &some, &n, NULL), *decayed = stepped(kind, &all, &n, NULL);
    bool *vector = vectors(kind, n);
    int64_t n_vectors = 0;
    for (int64_t i = 0; i < n; i++) {
        double shrunk = (double)plain[i] - 1e-2 * 0.5 * (double)start[i];
        CLOSE((double)decayed[i], shrunk, 2e-7);
        CLOSE((double)spared[i], vector[i] ? (double)plain[i] : shrunk, 2e-7);
        ck_assert(!vector[i] || spared[i] == plain[i]);
        ck_assert(vector[i] || spared[i] == decayed[i]);
        n_vectors += vector[i];
    }
    /* Two norms and four biases a layer, one norm at the end. */
    ck_assert_int_eq(n_vectors, 2 * (4 * 32 + (3 + 1 + 1) * 32 + 48) + 2 * 32);
    free(start);
    free(plain);
    free(spared);
    free(decayed);
    free(vector);
}

START_TEST(vectors_are_spared)
{
    for (int kind = 0; kind < KINDS; kind++) {
        check_step(kind, PREFOPT_SGD);
        check_step(kind, PREFOPT_ADAMW);
    }
}
END_TEST

START_TEST(others_have_no_choice)
{
    prefopt_context *context = test_context(1);
    world w = world_new(context, 1, 3, 1, -1);
    prefopt_trainer *trainer = NULL;
    prefopt_train_options o = train_defaults();
    o.weight_decay = 0.1;
    prefopt_parameters p = parameters_of(w.policy);
    ((double *)p.value)[0] = 2;
    OK(prefopt_trainer_create_mle(&trainer, w.policy, w.all, &o));
    prefopt_trainer_destroy(trainer);
    o.decay_vectors = 1;
    FAILS(PREFOPT_ERR_ARGUMENT, "mle: decay_vectors is 1",
          prefopt_trainer_create_mle(&trainer, w.policy, w.all, &o));
    prefopt_reward *implicit;
    OK(prefopt_reward_create_local(&implicit, w.policy));
    prefopt_dataset *pairs = random_pairs(&w, 1, 2);
    FAILS(PREFOPT_ERR_ARGUMENT, "reward: decay_vectors is 1",
          prefopt_trainer_create_reward(&trainer, implicit, pairs, NULL, &o));
    prefopt_reward_destroy(implicit);
    prefopt_dataset_destroy(pairs);
    world_free(&w);
    prefopt_context_destroy(context);
}
END_TEST

TEST_MAIN("weight decay", vectors_are_spared, others_have_no_choice)
