#include "gap_measure.h"

#include <math.h>

#include "cli.h"

static void make_level(gap_tree *t, const prefopt_dataset *prompts, int d)
{
    const gap_world *w = t->world;
    int length = w->prompt_len + d;
    int64_t n = d == 0 ? t->n_prompts : t->level[d - 1].n * w->degree;
    int32_t *tokens = calloc((size_t)(n * length), sizeof *tokens);
    int64_t *offsets = calloc((size_t)n + 1, sizeof *offsets);
    int64_t *prompt_len = calloc((size_t)n, sizeof *prompt_len);
    if (tokens == NULL || offsets == NULL || prompt_len == NULL)
        exit(1);
    for (int64_t i = 0; i < n; i++) {
        int32_t *own = tokens + i * length;
        if (d == 0) {
            prefopt_row row = {.struct_size = sizeof row};
            CALL(prefopt_dataset_row(prompts, i, &row));
            memcpy(own, row.prompt, (size_t)length * sizeof *own);
        } else {
            const int32_t *parent = t->level[d - 1].tokens + i / w->degree * (length - 1);
            memcpy(own, parent, (size_t)(length - 1) * sizeof *own);
            own[length - 1] = w->next[parent[length - 2] * w->degree + i % w->degree];
        }
        offsets[i + 1] = offsets[i] + length;
        prompt_len[i] = w->prompt_len;
    }
    t->level[d] = (prefopt_sequences){.struct_size = sizeof t->level[d],
                                      .n = n,
                                      .tokens = tokens,
                                      .offsets = offsets,
                                      .prompt_len = prompt_len};
}

void gap_tree_create(gap_tree *t, const gap_world *w, const prefopt_dataset *prompts,
                     int64_t n_prompts)
{
    int64_t n = prefopt_dataset_size(prompts);
    *t = (gap_tree){.world = w, .n_prompts = n < n_prompts ? n : n_prompts};
    t->level = calloc((size_t)w->length + 1, sizeof *t->level);
    if (t->level == NULL)
        exit(1);
    for (int d = 0; d <= w->length; d++) {
        make_level(t, prompts, d);
        t->n_nodes += d < w->length ? t->level[d].n : 0;
    }
    prefopt_sequences walks = t->level[w->length];
    t->n_walks = walks.n;
    t->success = doubles(t->n_walks);
    for (int64_t i = 0; i < t->n_walks; i++) {
        const int32_t *prompt = walks.tokens + walks.offsets[i];
        t->success[i] = w->success(w, prompt, prompt + w->prompt_len);
    }
}

void gap_tree_destroy(gap_tree *t)
{
    for (int d = 0; d <= t->world->length; d++) {
        free((void *)t->level[d].tokens);
        free((void *)t->level[d].offsets);
        free((void *)t->level[d].prompt_len);
    }
    free(t->level);
    free(t->success);
    free(t->reference);
}

/* Log-probabilities of the next token after every beginning: [n_nodes, vocab]. */
static double *next_logprobs(const gap_tree *t, prefopt_policy *policy)
{
    double *next = doubles(t->n_nodes * t->world->vocab), *at = next;
    for (int d = 0; d < t->world->length; d++) {
        CALL(prefopt_policy_next_logprobs(policy, &t->level[d], at));
        at += t->level[d].n * t->world->vocab;
    }
    return next;
}

void gap_tree_set_reference(gap_tree *t, prefopt_policy *reference)
{
    free(t->reference);
    t->reference = next_logprobs(t, reference);
}

gap_exact gap_tree_evaluate(const gap_tree *t, prefopt_policy *policy, double *walk_logp)
{
    const gap_world *w = t->world;
    double *next = next_logprobs(t, policy), *logp = doubles(t->n_prompts);
    const double *p = next, *q = t->reference;
    gap_exact e = {.success = 0};
    for (int d = 0; d < w->length; d++) {
        int64_t n = t->level[d].n;
        double *child = doubles(n * w->degree);
        for (int64_t i = 0; i < n; i++, p += w->vocab, q += w->vocab) {
            double kl = 0;
            for (int v = 0; v < w->vocab; v++)
                if (p[v] > -INFINITY)
                    kl += exp(p[v]) * (p[v] - q[v]);
            e.kl += exp(logp[i]) * kl / (double)t->n_prompts;
            for (int c = 0; c < w->degree; c++)
                child[i * w->degree + c] =
                    logp[i] +
                    p[t->level[d + 1].tokens[t->level[d + 1].offsets[i * w->degree + c + 1] - 1]];
        }
        free(logp);
        logp = child;
    }
    for (int64_t i = 0; i < t->n_walks; i++) {
        e.legal += exp(logp[i]) / (double)t->n_prompts;
        e.success += exp(logp[i]) * t->success[i] / (double)t->n_prompts;
    }
    if (walk_logp != NULL)
        memcpy(walk_logp, logp, (size_t)t->n_walks * sizeof *logp);
    free(logp);
    free(next);
    return e;
}

double gap_tree_best_of(const gap_tree *t, int64_t n, const double *walk_logp, const double *score)
{
    int64_t each = t->n_walks / t->n_prompts;
    double *logp = doubles(each), total = 0;
    for (int64_t x = 0; x < t->n_prompts; x++) {
        double legal = 0;
        for (int64_t i = 0; i < each; i++)
            legal += exp(walk_logp[x * each + i]);
        for (int64_t i = 0; i < each; i++)
            logp[i] = walk_logp[x * each + i] - log(legal);
        CALL(prefopt_best_of_n(n, each, logp, score + x * each, logp, NULL, NULL, NULL));
        for (int64_t i = 0; i < each; i++)
            total += exp(logp[i]) * t->success[x * each + i];
    }
    free(logp);
    return total / (double)t->n_prompts;
}

void gap_tree_scores(const gap_tree *t, prefopt_reward *judge, double *score)
{
    CALL(prefopt_reward_scores(judge, &t->level[t->world->length], score));
}

/* Number of a walk in the tree, -1 when its prompt is not there or it is not legal. */
static int64_t walk_number(const gap_tree *t, const int32_t *walk)
{
    const gap_world *w = t->world;
    int64_t at = 0;
    while (at < t->n_prompts && memcmp(t->level[0].tokens + at * w->prompt_len, walk,
                                       (size_t)w->prompt_len * sizeof *walk) != 0)
        at++;
    if (at == t->n_prompts)
        return -1;
    for (int i = 0; i < w->length; i++) {
        const int32_t *next = w->next + walk[w->prompt_len + i - 1] * w->degree;
        int c = 0;
        while (c < w->degree && next[c] != walk[w->prompt_len + i])
            c++;
        if (c == w->degree)
            return -1;
        at = at * w->degree + c;
    }
    return at;
}

void gap_tree_uncovered(const gap_tree *t, const prefopt_dataset *data, const double *walk_logp,
                        double *uncovered, double *uncovered_success)
{
    prefopt_sequences s = {.struct_size = sizeof s};
    char *covered = calloc((size_t)t->n_walks, 1);
    if (covered == NULL)
        exit(1);
    CALL(prefopt_dataset_sequences(data, &s));
    for (int64_t i = 0; i < s.n; i++) {
        int64_t walk = walk_number(t, s.tokens + s.offsets[i]);
        if (walk >= 0)
            covered[walk] = 1;
    }
    *uncovered = *uncovered_success = 0;
    for (int64_t i = 0; i < t->n_walks; i++)
        if (!covered[i]) {
            *uncovered += exp(walk_logp[i]) / (double)t->n_prompts;
            *uncovered_success += exp(walk_logp[i]) * t->success[i] / (double)t->n_prompts;
        }
    free(covered);
}

/* Mean true success of samples, and the share of successes of 1. */
static void mean_success(const gap_world *w, const prefopt_sequences *s, double *mean,
                         double *whole)
{
    double *x = doubles(s->n);
    CALL(prefopt_reward_scores(w->truth, s, x));
    *mean = *whole = 0;
    for (int64_t i = 0; i < s->n; i++) {
        *mean += x[i] / w->scale / (double)s->n;
        *whole += x[i] > (1 - 1e-9) * w->scale;
    }
    *whole /= (double)s->n;
    free(x);
}

void gap_greedy(gap_record *out, const char *name, const gap_world *w, prefopt_policy *policy,
                const prefopt_dataset *prompts)
{
    prefopt_sampler_options sampler;
    prefopt_dataset *samples;
    prefopt_sequences s = {.struct_size = sizeof s};
    double mean, whole;
    CALL(prefopt_sampler_options_init(&sampler, sizeof sampler));
    sampler.n = 1;
    sampler.temperature = 0;
    CALL(prefopt_sample(&samples, policy, prompts, &sampler));
    CALL(prefopt_dataset_sequences(samples, &s));
    mean_success(w, &s, &mean, &whole);
    gap_put(out, mean, "%s.greedy", name);
    gap_put(out, whole, "%s.greedy_whole", name);
    prefopt_dataset_destroy(samples);
}

void gap_sampled(gap_record *out, const char *name, const char *suffix, const gap_world *w,
                 prefopt_policy *policy, const prefopt_reference *reference,
                 const prefopt_dataset *prompts, int64_t n)
{
    prefopt_sampler_options sampler;
    prefopt_dataset *samples;
    prefopt_columns columns = {.struct_size = sizeof columns};
    prefopt_sequences s = {.struct_size = sizeof s};
    CALL(prefopt_sampler_options_init(&sampler, sizeof sampler));
    sampler.n = n;
    sampler.seed = w->seed;
    CALL(prefopt_sample(&samples, policy, prompts, &sampler));
    CALL(prefopt_dataset_columns(samples, &columns));
    CALL(prefopt_dataset_sequences(samples, &s));
    double mean, whole;
    mean_success(w, &s, &mean, &whole);
    gap_put(out, mean, "%s.sampled%s", name, suffix);
    gap_put(out, whole, "%s.whole%s", name, suffix);
    gap_put(out, gap_legal_share(w, samples), "%s.sampled_legal%s", name, suffix);
    if (reference != NULL) {
        double *x = doubles(s.n);
        CALL(prefopt_reference_logprobs(reference, &s, x));
        for (int k = PREFOPT_KL_K1; k <= PREFOPT_KL_K3; k++) {
            CALL(prefopt_kl_estimate(PREFOPT_KL_REVERSE, k, PREFOPT_FROM_POLICY, s.n, columns.logp,
                                     x, NULL, &mean, NULL));
            gap_put(out, mean, "%s.k%d%s", name, k, suffix);
        }
        free(x);
    }
    prefopt_dataset_destroy(samples);
}
