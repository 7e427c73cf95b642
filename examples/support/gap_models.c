#include "gap_models.h"

#include <math.h>

#include "cli.h"

void gap_sizes_init(gap_sizes *sizes, gap_kind kind)
{
    *sizes = (gap_sizes){.n_pairs = 4000,
                         .n_held_pairs = 4000,
                         .n_prompts = 4000,
                         .sft_steps = 600,
                         .reward_steps = 400,
                         .samples = 16,
                         .fresh_samples = 8,
                         .batch = 64,
                         .held_prompts = 64,
                         .held_samples = 50};
    if (kind == WORLD_SUDOKU)
        sizes->sft_steps = 1500;
}

prefopt_policy *gap_policy_create(const gap_models *m, uint64_t seed)
{
    prefopt_transformer_config config;
    prefopt_policy *policy;
    CALL(prefopt_transformer_config_init(&config, sizeof config));
    config.parallel_residual = 0;
    config.eos = -1;
    config.vocab = m->world.vocab;
    config.n_layers = 2;
    config.width = 64;
    config.n_heads = 4;
    config.ff_width = 256;
    config.max_positions = m->world.prompt_len + m->world.length;
    config.rotary_fraction = 1;
    config.init_scale = 0.1;
    CALL(prefopt_policy_create_transformer(&policy, m->world.context, &config, seed));
    return policy;
}

prefopt_policy *gap_policy_copy(const gap_models *m, prefopt_policy *from)
{
    prefopt_policy *policy = gap_policy_create(m, 0);
    prefopt_parameters to = {.struct_size = sizeof to}, source = {.struct_size = sizeof source};
    CALL(prefopt_policy_parameters(policy, &to));
    CALL(prefopt_policy_parameters(from, &source));
    memcpy(to.value, source.value, (size_t)to.n * sizeof(float));
    CALL(prefopt_policy_updated(policy));
    if (m->sizes.mask && m->world.allowed != NULL)
        CALL(prefopt_policy_set_transitions(policy, m->world.allowed));
    return policy;
}

prefopt_train_options gap_train_options(const gap_models *m, double learning_rate)
{
    prefopt_train_options train;
    CALL(prefopt_train_options_init(&train, sizeof train));
    train.learning_rate = learning_rate;
    train.beta2 = 0.98;
    train.warmup_steps = 20;
    train.clip_norm = 1;
    train.batch = m->sizes.batch;
    train.seed = m->world.seed;
    return train;
}

static void train_sft(gap_models *m)
{
    int64_t batch = 2 * m->sizes.batch, steps = m->sizes.sft_steps;
    prefopt_dataset *data = gap_demonstrations(&m->world, batch * steps);
    prefopt_train_options train = gap_train_options(m, 1e-3);
    prefopt_trainer *trainer;
    train.batch = batch;
    train.warmup_steps = 50;
    train.schedule = PREFOPT_COSINE;
    train.schedule_steps = steps;
    train.final_fraction = 0.1;
    train.weight_decay = 0.01;
    CALL(prefopt_trainer_create_mle(&trainer, m->sft, data, &train));
    CALL(prefopt_trainer_run(trainer, steps, NULL));
    prefopt_trainer_destroy(trainer);
    prefopt_dataset_destroy(data);
}

static prefopt_dataset *sample(prefopt_policy *policy, const prefopt_dataset *prompts, int64_t n,
                               uint64_t seed, uint64_t round)
{
    prefopt_sampler_options sampler;
    prefopt_dataset *samples;
    CALL(prefopt_sampler_options_init(&sampler, sizeof sampler));
    sampler.n = n;
    sampler.seed = seed;
    sampler.round = round;
    CALL(prefopt_sample(&samples, policy, prompts, &sampler));
    return samples;
}

prefopt_dataset *gap_samples(const gap_models *m, prefopt_policy *policy, int64_t n_samples,
                             uint64_t round)
{
    return sample(policy, m->prompts, n_samples, m->world.seed, 1000 * STREAM_ROUNDS + round);
}

prefopt_dataset *gap_pairs(const gap_models *m, const prefopt_dataset *prompts, int64_t first,
                           int64_t n, uint64_t stream)
{
    const gap_world *w = &m->world;
    prefopt_dataset *drawn = gap_prompts(w, prompts, first + n, stream), *of, *samples, *pairs;
    int64_t *rows = calloc((size_t)n, sizeof *rows);
    prefopt_sequences s = {.struct_size = sizeof s};
    if (rows == NULL)
        exit(1);
    for (int64_t i = 0; i < n; i++)
        rows[i] = first + i;
    CALL(prefopt_dataset_select(&of, drawn, rows, n));
    samples = sample(m->sft, of, 2, w->seed, 1000 * stream + (first > 0));
    CALL(prefopt_dataset_sequences(samples, &s));
    double *reward = doubles(s.n);
    CALL(prefopt_reward_scores(w->truth, &s, reward));
    CALL(prefopt_dataset_create(&pairs, w->context));
    gap_random label = {w->seed, stream, 1000000 + (uint64_t)first};
    for (int64_t i = 0; i < n; i++) {
        const int32_t *a = s.tokens + s.offsets[2 * i], *b = s.tokens + s.offsets[2 * i + 1];
        int a_wins = gap_uniform(&label) < 1 / (1 + exp(reward[2 * i + 1] - reward[2 * i]));
        CALL(prefopt_dataset_append_pair(pairs, a, w->prompt_len, (a_wins ? a : b) + w->prompt_len,
                                         w->length, (a_wins ? b : a) + w->prompt_len, w->length, 1,
                                         1, 0));
    }
    free(reward);
    free(rows);
    prefopt_dataset_destroy(samples);
    prefopt_dataset_destroy(of);
    prefopt_dataset_destroy(drawn);
    return pairs;
}

int64_t gap_train_to_best(const gap_models *m, prefopt_trainer *trainer, prefopt_reward *reward,
                          prefopt_parameters parameters, int64_t n_steps, int64_t every)
{
    size_t size = (size_t)parameters.n * sizeof(float);
    void *best = malloc(size);
    double highest = -INFINITY;
    int64_t best_step = 0;
    if (best == NULL)
        exit(1);
    for (int64_t step = 0; step < n_steps;) {
        int64_t n = every < n_steps - step ? every : n_steps - step;
        prefopt_preference_fit fit = {.struct_size = sizeof fit};
        CALL(prefopt_trainer_run(trainer, n, NULL));
        step += n;
        CALL(prefopt_report_preference_fit(&fit, reward, m->validation));
        if (fit.log_likelihood > highest) {
            highest = fit.log_likelihood;
            best_step = step;
            memcpy(best, parameters.value, size);
        }
    }
    memcpy(parameters.value, best, size);
    free(best);
    prefopt_trainer_destroy(trainer);
    return best_step;
}

static void train_reward(gap_models *m, gap_record *out)
{
    prefopt_train_options train = gap_train_options(m, 5e-4);
    prefopt_trainer *trainer;
    prefopt_parameters parameters = {.struct_size = sizeof parameters};
    CALL(prefopt_reward_from_policy(&m->reward, m->sft));
    train.weight_decay = 0.01;
    CALL(prefopt_trainer_create_reward(&trainer, m->reward, m->pairs, NULL, &train));
    CALL(prefopt_reward_parameters(m->reward, &parameters));
    int64_t best = gap_train_to_best(m, trainer, m->reward, parameters, m->sizes.reward_steps, 50);
    CALL(prefopt_reward_updated(m->reward));
    gap_put(out, (double)best, "reward.step");
}

void gap_put_fit(const gap_models *m, prefopt_reward *reward, const char *name, gap_record *out)
{
    prefopt_preference_fit fit = {.struct_size = sizeof fit};
    CALL(prefopt_report_preference_fit(&fit, reward, m->held_pairs));
    gap_put(out, fit.log_likelihood, "%s.loglik", name);
    gap_put(out, fit.accuracy, "%s.accuracy", name);
    gap_put(out, fit.likelihood, "%s.likelihood", name);
    CALL(prefopt_report_preference_fit(&fit, reward, m->validation));
    gap_put(out, fit.accuracy, "%s.val_accuracy", name);
}

/* Share of pairs whose two completions have different true rewards. */
static double informative(const gap_models *m, const prefopt_dataset *pairs)
{
    prefopt_sequences s = {.struct_size = sizeof s};
    CALL(prefopt_dataset_sequences(pairs, &s));
    double *reward = doubles(s.n), different = 0;
    CALL(prefopt_reward_scores(m->world.truth, &s, reward));
    for (int64_t i = 0; i < s.n; i += 2)
        different += reward[i] != reward[i + 1];
    free(reward);
    return different / (double)(s.n / 2);
}

/* Control b: what the table of all prompts earns on the held-out ones. */
static double shared_success(const gap_world *w)
{
    int64_t n = prefopt_dataset_size(w->held);
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        prefopt_row row = {.struct_size = sizeof row};
        int32_t walk[64];
        CALL(prefopt_dataset_row(w->held, i, &row));
        walk_world_hidden(w, row.prompt, 0, walk);
        sum += w->success(w, row.prompt, walk);
    }
    return sum / (double)n;
}

void gap_models_create(gap_models *m, gap_kind kind, uint64_t seed, const gap_sizes *sizes,
                       gap_record *out)
{
    memset(m, 0, sizeof *m);
    m->sizes = *sizes;
    if (kind == WORLD_SUDOKU)
        sudoku_world_create(&m->world, seed);
    else
        walk_world_create(&m->world, kind, seed);
    m->sft = gap_policy_create(m, seed);
    train_sft(m);
    if (m->world.allowed != NULL)
        gap_sampled(out, "sft_free", "", &m->world, m->sft, NULL, m->world.held,
                    sizes->held_samples);
    /* Demonstrations teach what is legal; from here on the policy may know it. */
    if (sizes->mask && m->world.allowed != NULL)
        CALL(prefopt_policy_set_transitions(m->sft, m->world.allowed));
    CALL(prefopt_reference_freeze(&m->reference, m->sft));
    gap_sampled(out, "sft", "", &m->world, m->sft, NULL, m->world.held, sizes->held_samples);
    gap_greedy(out, "sft", &m->world, m->sft, m->world.held);
    if (kind == WORLD_HIDDEN)
        gap_put(out, shared_success(&m->world), "shared.success");
    if (kind == WORLD_SUDOKU)
        gap_put(out, sudoku_world_known(&m->world), "held.known");
    m->prompts = gap_prompts(&m->world, m->world.train, sizes->n_prompts, STREAM_PAIRS);
    m->pairs = gap_pairs(m, m->world.train, 0, sizes->n_pairs, STREAM_PAIRS);
    m->validation = gap_pairs(m, m->world.train, 0, sizes->n_held_pairs / 2, STREAM_VALIDATION);
    m->held_pairs = gap_pairs(m, m->world.held, 0, sizes->n_held_pairs, STREAM_HELD_OUT);
    gap_put(out, informative(m, m->pairs), "pairs.informative");
    gap_put_fit(m, m->world.truth, "oracle", out);
    train_reward(m, out);
    gap_put_fit(m, m->reward, "reward", out);
    if (m->world.degree > 0) {
        gap_tree_create(&m->held, &m->world, m->world.held, sizes->held_prompts);
        gap_tree_create(&m->train, &m->world, m->world.train, (sizes->held_prompts + 1) / 2);
        gap_tree_set_reference(&m->held, m->sft);
        gap_tree_set_reference(&m->train, m->sft);
    }
}

void gap_models_destroy(gap_models *m)
{
    if (m->world.degree > 0) {
        gap_tree_destroy(&m->held);
        gap_tree_destroy(&m->train);
    }
    prefopt_policy_destroy(m->offline);
    prefopt_dataset_destroy(m->pairs);
    prefopt_dataset_destroy(m->prompts);
    prefopt_dataset_destroy(m->validation);
    prefopt_dataset_destroy(m->held_pairs);
    prefopt_reward_destroy(m->reward);
    prefopt_reference_destroy(m->reference);
    prefopt_policy_destroy(m->sft);
    gap_world_destroy(&m->world);
}
