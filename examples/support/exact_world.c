#include "exact_world.h"

#include <math.h>

#include "cli.h"

/* Four things a checker can see at a glance: how often each of two tokens stands in the completion,
 * whether it repeats a token, and its last token. */
static void simple_features(const int32_t *token, int n, double *feature)
{
    feature[0] = feature[1] = feature[2] = 0;
    for (int i = 0; i < n; i++) {
        feature[0] += token[i] == 0;
        feature[1] += token[i] == 1;
        feature[2] += i > 0 && token[i] == token[i - 1];
    }
    feature[3] = token[n - 1] == 0;
}

static void make_features(world *w, int one_feature_each)
{
    w->n_features = one_feature_each ? w->n_sequences : 4;
    w->features = doubles(w->n_sequences * w->n_features);
    for (int64_t i = 0; i < w->n_sequences; i++) {
        double *row = w->features + i * w->n_features;
        if (one_feature_each)
            row[i] = 1;
        else
            simple_features(w->sequences.tokens + w->sequences.offsets[i] +
                                w->sequences.prompt_len[i],
                            w->horizon, row);
    }
}

static void make_reward(world *w, reward_kind kind)
{
    double theta[4];
    w->reward = doubles(w->n_sequences);
    CALL(prefopt_random_normal(w->seed, 1, 0, 4, theta));
    for (int64_t i = 0; i < w->n_sequences; i++) {
        double feature[4];
        if (kind == REWARD_TABLE) {
            CALL(prefopt_random_normal(w->seed, 2, (uint64_t)i, 1, &w->reward[i]));
            continue;
        }
        simple_features(w->sequences.tokens + w->sequences.offsets[i] + w->sequences.prompt_len[i],
                        w->horizon, feature);
        for (int k = 0; k < 4; k++)
            w->reward[i] += theta[k] * feature[k];
    }
    prefopt_parameters p = {.struct_size = sizeof p};
    CALL(prefopt_reward_create_tabular(&w->truth, w->context, &w->sequences));
    CALL(prefopt_reward_parameters(w->truth, &p));
    memcpy(p.value, w->reward, (size_t)w->n_sequences * sizeof *w->reward);
    CALL(prefopt_reward_updated(w->truth));
}

prefopt_policy *world_policy(const world *w)
{
    prefopt_policy *policy;
    prefopt_sequences prompts = {.struct_size = sizeof prompts};
    CALL(prefopt_dataset_sequences(w->prompts, &prompts));
    CALL(prefopt_policy_create_tabular(&policy, w->context, &w->space, &prompts));
    return policy;
}

void world_create(world *w, uint64_t seed, int horizon, reward_kind kind, int one_feature_each,
                  double beta)
{
    memset(w, 0, sizeof *w);
    w->seed = seed;
    w->horizon = horizon;
    w->beta = beta;
    prefopt_context_options one_thread;
    CALL(prefopt_context_options_init(&one_thread, sizeof one_thread));
    one_thread.threads = 1;
    CALL(prefopt_context_create(&w->context, &one_thread));
    w->space = (prefopt_space){
        .struct_size = sizeof w->space, .eos = -1, .vocab = WORLD_VOCAB, .horizon = horizon};
    CALL(prefopt_dataset_create(&w->prompts, w->context));
    for (int32_t x = 0; x < WORLD_PROMPTS; x++) {
        prefopt_row row;
        CALL(prefopt_row_init(&row, sizeof row));
        row.prompt = &x;
        row.prompt_len = 1;
        CALL(prefopt_dataset_append(w->prompts, &row));
    }
    prefopt_policy *policy = world_policy(w);
    CALL(prefopt_policy_enumerate(&w->all, policy, w->prompts, 0));
    prefopt_policy_destroy(policy);
    w->sequences.struct_size = sizeof w->sequences;
    CALL(prefopt_dataset_sequences(w->all, &w->sequences));
    w->n_sequences = w->sequences.n;
    w->n_each = w->n_sequences / WORLD_PROMPTS;
    CALL(prefopt_reference_create_uniform(&w->reference, w->context, &w->space));
    make_features(w, one_feature_each);
    make_reward(w, kind);
}

void world_destroy(world *w)
{
    prefopt_reward_destroy(w->truth);
    prefopt_reference_destroy(w->reference);
    prefopt_dataset_destroy(w->all);
    prefopt_dataset_destroy(w->prompts);
    prefopt_context_destroy(w->context);
    free(w->features);
    free(w->reward);
}

prefopt_dataset *world_pairs(const world *w, int64_t first, int64_t n)
{
    prefopt_dataset *pairs;
    CALL(prefopt_dataset_create(&pairs, w->context));
    for (int64_t i = first; i < first + n; i++) {
        double u[4]; /* prompt, two different completions, label */
        CALL(prefopt_random_uniform(w->seed, 3, (uint64_t)(4 * i), 4, u));
        int64_t x = (int64_t)(u[0] * WORLD_PROMPTS), a = (int64_t)(u[1] * (double)w->n_each);
        int64_t b = (a + 1 + (int64_t)(u[2] * (double)(w->n_each - 1))) % w->n_each;
        a += x * w->n_each;
        b += x * w->n_each;
        if (u[3] > prefopt_sigmoid(w->reward[a] - w->reward[b])) {
            int64_t swap = a;
            a = b;
            b = swap;
        }
        const int32_t *token = w->sequences.tokens;
        const int64_t *offset = w->sequences.offsets;
        CALL(prefopt_dataset_append_pair(pairs, token + offset[a], 1, token + offset[a] + 1,
                                         w->horizon, token + offset[b] + 1, w->horizon, 1, 1, 0));
    }
    return pairs;
}

double world_score(const world *w, prefopt_policy *policy)
{
    prefopt_objective o = {.struct_size = sizeof o}, start = {.struct_size = sizeof start};
    prefopt_policy *uniform = world_policy(w);
    CALL(prefopt_report_objective(&o, policy, w->reference, w->truth, w->prompts, w->beta));
    CALL(prefopt_report_objective(&start, uniform, w->reference, w->truth, w->prompts, w->beta));
    prefopt_policy_destroy(uniform);
    return 1 - o.regret / start.regret;
}
