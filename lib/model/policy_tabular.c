/* Tabular policy: a softmax for every state of the token tree, for each prompt.
 *
 * States are the completions that can go on: prefixes of length l < horizon over the a tokens that
 * are not eos (all of them without eos). They are numbered level by level, within a level as
 * numbers in base a, so that the parent of the k-th state of a level is the (k / a)-th of the level
 * above. Rows are [prompt][state]; logits and gradients are [row][vocab].
 *
 * log_z[row] = log sum exp(logits[row]) is kept, so that a token costs one subtraction; it is
 * computed when the logits change (prefopt_policy_updated) and never by a call that reads.
 */
#include <math.h>

#include "math/pf_math.h"
#include "model/pf_model.h"

typedef struct {
    prefopt_context *context;
    prefopt_space space;
    pf_sequence_map *prompts; /* immutable, shared by clones */
    int64_t n_states, n_rows, n_logits;
    double *logits, *grad; /* n_logits */
    double *log_z, *spare; /* n_rows */
} tabular;

/* ---------------------------------------------------------------- the token tree */

typedef struct {
    int64_t start;  /* number of the level's first state */
    int64_t width;  /* states of the level */
    int64_t number; /* within the level */
} place;

static place root(void) { return (place){.start = 0, .width = 1, .number = 0}; }

static int64_t digit(const prefopt_space *space, int32_t token)
{
    return token - (space->eos >= 0 && token > space->eos);
}

static int32_t token_of(const prefopt_space *space, int64_t d)
{
    return (int32_t)(d + (space->eos >= 0 && d >= space->eos));
}

/* The state after one more token that is not eos; a level below the last is never asked for. */
static place descend(const prefopt_space *space, place at, int32_t token)
{
    int64_t a = pf_space_alphabet(space);
    return (place){.start = at.start + at.width,
                   .width = at.width * a,
                   .number = at.number * a + digit(space, token)};
}

static bool count_states(const prefopt_space *space, int64_t *n_states)
{
    int64_t a = pf_space_alphabet(space), width = 1, sum = 0;
    if (a <= 1) {
        *n_states = a == 0 ? 1 : space->horizon;
        return true;
    }
    for (int64_t l = 0; l < space->horizon; l++)
        if (!pf_add(sum, width, &sum) || (l + 1 < space->horizon && !pf_mul(width, a, &width)))
            return false;
    *n_states = sum;
    return true;
}

/* ---------------------------------------------------------------- normalising */

enum { ROWS_PER_TASK = 256 };

typedef struct {
    const tabular *t;
    double *log_z;
} normalise_job;

static void normalise_task(void *payload, int64_t task)
{
    const normalise_job *job = payload;
    int64_t vocab = job->t->space.vocab, first = task * ROWS_PER_TASK;
    int64_t end = first + ROWS_PER_TASK < job->t->n_rows ? first + ROWS_PER_TASK : job->t->n_rows;
    for (int64_t row = first; row < end; row++)
        job->log_z[row] = pf_log_sum_exp(vocab, job->t->logits + row * vocab);
}

static int32_t bad_row(const tabular *t, int64_t row)
{
    int64_t vocab = t->space.vocab;
    for (int64_t v = 0; v < vocab; v++) {
        double x = t->logits[row * vocab + v];
        if (isnan(x) || x == INFINITY)
            return pf_fail(PREFOPT_ERR_NUMERIC,
                           "logits: token %lld of state %lld of prompt %lld is %g, expected a "
                           "finite number or -inf",
                           (long long)v, (long long)(row % t->n_states),
                           (long long)(row / t->n_states), x);
    }
    return pf_fail(PREFOPT_ERR_NUMERIC,
                   "logits: every token of state %lld of prompt %lld is -inf, expected one that "
                   "can be drawn",
                   (long long)(row % t->n_states), (long long)(row / t->n_states));
}

/* On failure log_z stays that of the last good logits. */
static int32_t tabular_updated(void *payload)
{
    tabular *t = payload;
    normalise_job job = {t, t->spare};
    pf_parallel_for(t->context, (t->n_rows + ROWS_PER_TASK - 1) / ROWS_PER_TASK, normalise_task,
                    &job);
    for (int64_t row = 0; row < t->n_rows; row++)
        if (!isfinite(t->spare[row]))
            return bad_row(t, row);
    double *fresh = t->spare;
    t->spare = t->log_z;
    t->log_z = fresh;
    return PREFOPT_OK;
}

/* ---------------------------------------------------------------- log-probabilities */

/* First row of sequence i's prompt; -1 with the error text when it is not known (ARGUMENT). */
static int64_t prompt_row(const tabular *t, const prefopt_sequences *in, int64_t i)
{
    int64_t prompt = pf_find_prompt(t->prompts, in, i);
    return prompt < 0 ? -1 : prompt * t->n_states;
}

static int32_t tabular_logprobs(void *payload, const prefopt_sequences *in, double *sequence_logp,
                                double *token_logp)
{
    const tabular *t = payload;
    int64_t vocab = t->space.vocab;
    for (int64_t i = 0; i < in->n; i++) {
        int64_t len, row0 = prompt_row(t, in, i);
        if (row0 < 0)
            return PREFOPT_ERR_ARGUMENT;
        PF_TRY(pf_space_check_completion(&t->space, in, i));
        const int32_t *y = pf_completion(in, i, &len);
        double *out = token_logp == NULL
                          ? NULL
                          : token_logp + (in->offsets[i] - in->offsets[0]) + in->prompt_len[i];
        double sum = 0;
        place at = root();
        for (int64_t k = 0; k < len; k++) {
            int64_t row = row0 + at.start + at.number;
            double logp = t->logits[row * vocab + y[k]] - t->log_z[row];
            sum += logp;
            if (out != NULL)
                out[k] = logp;
            if (k + 1 < len)
                at = descend(&t->space, at, y[k]);
        }
        sequence_logp[i] = sum;
    }
    return PREFOPT_OK;
}

static int32_t tabular_next_logprobs(void *payload, const prefopt_sequences *in, double *next_logp)
{
    const tabular *t = payload;
    int64_t vocab = t->space.vocab;
    for (int64_t i = 0; i < in->n; i++) {
        int64_t len, row = prompt_row(t, in, i);
        if (row < 0)
            return PREFOPT_ERR_ARGUMENT;
        PF_TRY(pf_space_check_prefix(&t->space, in, i));
        const int32_t *y = pf_completion(in, i, &len);
        place at = root();
        for (int64_t k = 0; k < len; k++)
            at = descend(&t->space, at, y[k]);
        row += at.start + at.number;
        for (int64_t v = 0; v < vocab; v++)
            next_logp[i * vocab + v] = t->logits[row * vocab + v] - t->log_z[row];
    }
    return PREFOPT_OK;
}

/* ---------------------------------------------------------------- gradient */

/* d log pi(token | row) / d logits[row] = onehot(token) - softmax(row). The one-hot parts are added
 * as sequences are walked; the softmax part of a row once, times the row's sum of gradients. A
 * sequence of probability 0 (a masked token) stays there whatever the other logits: it adds
 * nothing. */
static int32_t tabular_backward(void *payload, const prefopt_sequences *in, const double *grad_logp)
{
    tabular *t = payload;
    int64_t vocab = t->space.vocab;
    double *logp = pf_alloc(t->context, in->n, sizeof *logp);
    double *row_sum = pf_calloc(t->context, t->n_rows, sizeof *row_sum);
    int32_t status =
        logp == NULL || row_sum == NULL ? PREFOPT_ERR_MEMORY : tabular_logprobs(t, in, logp, NULL);
    for (int64_t i = 0; status == PREFOPT_OK && i < in->n; i++) {
        if (grad_logp[i] == 0 || logp[i] == -INFINITY)
            continue;
        int64_t len, row0 = prompt_row(t, in, i); /* known, or logp had failed */
        const int32_t *y = pf_completion(in, i, &len);
        place at = root();
        for (int64_t k = 0; k < len; k++) {
            int64_t row = row0 + at.start + at.number;
            t->grad[row * vocab + y[k]] += grad_logp[i];
            row_sum[row] += grad_logp[i];
            if (k + 1 < len)
                at = descend(&t->space, at, y[k]);
        }
    }
    for (int64_t row = 0; row < t->n_rows && status == PREFOPT_OK; row++)
        if (row_sum[row] != 0)
            for (int64_t v = 0; v < vocab; v++)
                t->grad[row * vocab + v] -=
                    row_sum[row] * exp(t->logits[row * vocab + v] - t->log_z[row]);
    pf_free(t->context, row_sum);
    pf_free(t->context, logp);
    return status;
}

static int32_t tabular_parameters(void *payload, prefopt_parameters *out)
{
    tabular *t = payload;
    out->dtype = PREFOPT_F64;
    out->n = t->n_logits;
    out->value = t->logits;
    out->grad = t->grad;
    return PREFOPT_OK;
}

/* ---------------------------------------------------------------- life */

static void tabular_destroy(void *payload)
{
    tabular *t = payload;
    prefopt_context *context = t->context;
    pf_free(context, t->logits);
    pf_free(context, t->grad);
    pf_free(context, t->log_z);
    pf_free(context, t->spare);
    pf_sequence_map_destroy(t->prompts);
    pf_free(context, t);
    pf_context_release(context);
}

/* Takes a reference to the map; logits and log_z are not written yet, gradients are 0. */
static tabular *tabular_new(prefopt_context *context, const prefopt_space *space,
                            pf_sequence_map *prompts, int64_t n_states, int64_t n_rows,
                            int64_t n_logits)
{
    tabular *t = pf_calloc(context, 1, sizeof *t);
    if (t == NULL)
        return NULL;
    t->context = pf_context_retain(context);
    t->space = *space;
    t->prompts = pf_sequence_map_retain(prompts);
    t->n_states = n_states;
    t->n_rows = n_rows;
    t->n_logits = n_logits;
    if ((t->logits = pf_alloc(context, n_logits, sizeof(double))) == NULL ||
        (t->grad = pf_calloc(context, n_logits, sizeof(double))) == NULL ||
        (t->log_z = pf_alloc(context, n_rows, sizeof(double))) == NULL ||
        (t->spare = pf_alloc(context, n_rows, sizeof(double))) == NULL) {
        tabular_destroy(t);
        return NULL;
    }
    return t;
}

static int32_t tabular_clone(void *payload, void **copy)
{
    const tabular *t = payload;
    tabular *c =
        tabular_new(t->context, &t->space, t->prompts, t->n_states, t->n_rows, t->n_logits);
    if (c == NULL)
        return PREFOPT_ERR_MEMORY;
    memcpy(c->logits, t->logits, (size_t)t->n_logits * sizeof(double));
    memcpy(c->log_z, t->log_z, (size_t)t->n_rows * sizeof(double));
    *copy = c;
    return PREFOPT_OK;
}

static const prefopt_policy_callbacks callbacks = {
    .struct_size = sizeof(prefopt_policy_callbacks),
    .logprobs = tabular_logprobs,
    .backward = tabular_backward,
    .next_logprobs = tabular_next_logprobs,
    .parameters = tabular_parameters,
    .clone = tabular_clone,
    .destroy = tabular_destroy,
    .updated = tabular_updated,
};

static int32_t tabular_hash(void *payload, uint64_t *out)
{
    const tabular *t = payload;
    uint64_t hash = pf_hash_space(pf_hash_kind("tabular policy"), &t->space);
    hash = pf_stream(
        hash, pf_row_hash(pf_sequence_map_view(t->prompts), 0, pf_sequence_map_size(t->prompts)));
    *out = pf_content_hash(t->context, hash, t->logits, t->n_logits * (int64_t)sizeof(double));
    return PREFOPT_OK;
}

static const pf_policy_extras extras = {.hash = tabular_hash};

static int32_t create_with(prefopt_policy **out, prefopt_context *context,
                           const prefopt_space *space, pf_sequence_map *prompts)
{
    int64_t n_states, n_rows, n_logits;
    if (!count_states(space, &n_states) ||
        !pf_mul(n_states, pf_sequence_map_size(prompts), &n_rows) ||
        !pf_mul(n_rows, space->vocab, &n_logits))
        return pf_fail(PREFOPT_ERR_MEMORY,
                       "the token tree overflows: vocab %lld, horizon %lld, %lld prompts",
                       (long long)space->vocab, (long long)space->horizon,
                       (long long)pf_sequence_map_size(prompts));
    tabular *t = tabular_new(context, space, prompts, n_states, n_rows, n_logits);
    if (t == NULL)
        return PREFOPT_ERR_MEMORY;
    memset(t->logits, 0, (size_t)n_logits * sizeof(double));
    int32_t status = tabular_updated(t);
    if (status == PREFOPT_OK)
        status = pf_policy_create(out, context, space, &callbacks, t);
    if (status != PREFOPT_OK) {
        tabular_destroy(t);
        return status;
    }
    (*out)->score_class = PF_SCORES_FREE;
    (*out)->extras = &extras;
    return PREFOPT_OK;
}

int32_t prefopt_policy_create_tabular(prefopt_policy **out, prefopt_context *context,
                                      const prefopt_space *space, const prefopt_sequences *prompts)
{
    PF_REQUIRE(out);
    PF_REQUIRE(context);
    prefopt_space own;
    PF_TRY(pf_space_read(&own, space));
    static const int64_t nothing[2] = {0, 0};
    const prefopt_sequences empty_prompt = {
        .struct_size = sizeof empty_prompt, .n = 1, .offsets = nothing, .prompt_len = nothing};
    if (prompts == NULL)
        prompts = &empty_prompt;
    PF_TRY(pf_sequences_check(prompts, "prompts"));
    pf_sequence_map *map;
    PF_TRY(pf_sequence_map_create(&map, context, prompts, PF_MAP_PROMPTS, NULL));
    int32_t status = create_with(out, context, &own, map);
    pf_sequence_map_destroy(map);
    return status;
}

/* ---------------------------------------------------------------- given log-probabilities */

/* Of the listed completions: known prompts, of the space and not empty, log-probabilities at most
 * 0, none twice, summing to 1 for each prompt. listed[prompt]: whether it has any. */
static int32_t check_listed(const tabular *t, const prefopt_sequences *in, const double *logp,
                            bool *listed, pf_sum *total)
{
    for (int64_t i = 0; i < in->n; i++) {
        int64_t row0 = prompt_row(t, in, i);
        if (row0 < 0)
            return PREFOPT_ERR_ARGUMENT;
        PF_TRY(pf_space_check_completion(&t->space, in, i));
        if (pf_sequence_len(in, i) == in->prompt_len[i])
            return pf_fail(PREFOPT_ERR_ARGUMENT,
                           "sequence %lld has an empty completion, which is not of the space",
                           (long long)i);
        if (isnan(logp[i]) || logp[i] > 0)
            return pf_fail(PREFOPT_ERR_NUMERIC, "sequence_logp[%lld] is %g, expected at most 0",
                           (long long)i, logp[i]);
        listed[row0 / t->n_states] = true;
        pf_sum_add(&total[row0 / t->n_states], exp(logp[i]));
    }
    for (int64_t p = 0; p < pf_sequence_map_size(t->prompts); p++)
        if (listed[p] && !(fabs(pf_sum_value(&total[p]) - 1) <= 1e-9))
            return pf_fail(PREFOPT_ERR_ARGUMENT,
                           "sequence_logp: the probabilities of prompt %lld sum to %.12g, expected "
                           "1 within 1e-9",
                           (long long)p, pf_sum_value(&total[p]));
    pf_sequence_map *map;
    int64_t *index = pf_alloc(t->context, in->n, sizeof *index);
    if (index == NULL)
        return PREFOPT_ERR_MEMORY;
    int32_t status = pf_sequence_map_create(&map, t->context, in, PF_MAP_SEQUENCES, index);
    if (status == PREFOPT_OK) {
        for (int64_t i = 0; i < in->n && status == PREFOPT_OK; i++)
            if (index[i] != i) /* numbered by first appearance */
                status = pf_fail(PREFOPT_ERR_ARGUMENT,
                                 "sequence %lld is listed twice, first as sequence %lld",
                                 (long long)i, (long long)index[i]);
        pf_sequence_map_destroy(map);
    }
    pf_free(t->context, index);
    return status;
}

/* mass[row][token] holds the log mass of completed edges; the others' comes up from the states
 * below, the last state first. Then each row is normalised to the conditional. */
static void conditionals(const tabular *t, double *mass)
{
    const prefopt_space *space = &t->space;
    int64_t vocab = space->vocab, a = pf_space_alphabet(space);
    int64_t width = 1, start = 0;
    if (a > 1)
        while (start + width < t->n_states) {
            start += width;
            width *= a;
        }
    else
        start = t->n_states - 1;
    for (int64_t s = t->n_states - 1; s >= 0; s--) {
        if (s < start) {
            width /= a;
            start -= width;
        }
        double *row = mass + s * vocab;
        double sum = pf_log_sum_exp(vocab, row);
        if (s > 0) {
            int64_t number = s - start, above = start - width / a;
            mass[(above + number / a) * vocab + token_of(space, number % a)] = sum;
        }
        for (int64_t v = 0; v < vocab; v++)
            row[v] = sum == -INFINITY ? 0 : row[v] - sum;
    }
}

static void write_conditionals(tabular *t, const prefopt_sequences *in, const double *logp,
                               const bool *listed)
{
    int64_t vocab = t->space.vocab, n_prompts = pf_sequence_map_size(t->prompts);
    for (int64_t p = 0; p < n_prompts; p++)
        if (listed[p])
            for (int64_t k = 0; k < t->n_states * vocab; k++)
                t->logits[p * t->n_states * vocab + k] = -INFINITY;
    for (int64_t i = 0; i < in->n; i++) {
        int64_t len, prompt = pf_sequence_map_find(t->prompts, in, i);
        const int32_t *y = pf_completion(in, i, &len);
        place at = root();
        for (int64_t k = 0; k + 1 < len; k++)
            at = descend(&t->space, at, y[k]);
        int64_t row = prompt * t->n_states + at.start + at.number;
        t->logits[row * vocab + y[len - 1]] = logp[i];
    }
    for (int64_t p = 0; p < n_prompts; p++)
        if (listed[p])
            conditionals(t, t->logits + p * t->n_states * vocab);
}

int32_t prefopt_policy_set_logprobs(prefopt_policy *policy, const prefopt_sequences *in,
                                    const double *sequence_logp)
{
    PF_REQUIRE(policy);
    PF_TRY(pf_sequences_check(in, "in"));
    PF_REQUIRE_FOR(in, sequence_logp);
    if (policy->callbacks.logprobs != tabular_logprobs)
        return pf_fail(PREFOPT_ERR_UNSUPPORTED,
                       "prefopt_policy_set_logprobs: the policy is not tabular");
    tabular *t = policy->payload;
    int64_t n_prompts = pf_sequence_map_size(t->prompts);
    bool *listed = pf_calloc(t->context, n_prompts, sizeof *listed);
    pf_sum *total = pf_calloc(t->context, n_prompts, sizeof *total);
    int32_t status = listed == NULL || total == NULL
                         ? PREFOPT_ERR_MEMORY
                         : check_listed(t, in, sequence_logp, listed, total);
    if (status == PREFOPT_OK) {
        /* Every row now gets a finite normaliser, so nothing below can fail. */
        write_conditionals(t, in, sequence_logp, listed);
        status = tabular_updated(t);
    }
    pf_free(t->context, total);
    pf_free(t->context, listed);
    return status;
}
