/* Sampling without replacement from an enumerated space: Gumbel-top-k (Kool et al., arXiv
 * 1903.06059). Each completion's log-probability gets an independent Gumbel number added; the n
 * largest sums, largest first, are n completions drawn one after the other, each from what the ones
 * before have left, renormalised.
 */
#include <math.h>

#include "data/pf_dataset.h"
#include "model/pf_model.h"
#include "online/pf_online.h"

/* Completions a prompt, so that a forgotten horizon is an answer and not a full memory. */
enum { MOST_COMPLETIONS = 1000000 };

/* Room for one row of up to `count` completions and n drawn ones. */
typedef struct {
    prefopt_context *context;
    double *key;    /* count */
    int64_t *order; /* count */
    double *logp;   /* n */
    int64_t *offsets;
    int64_t token_capacity;
    int32_t *tokens;
} room;

/* Row `row` of the prompts, of which `all` is the enumeration. */
static int32_t draw_row(room *r, const prefopt_sampler_options *o, int64_t row,
                        const prefopt_row *prompt, const prefopt_row *all, prefopt_dataset *samples)
{
    int64_t count = all->n_completions, possible = 0;
    for (int64_t i = 0; i < count; i++)
        possible += all->logp[i] > -INFINITY;
    if (possible < o->n)
        return pf_fail(
            PREFOPT_ERR_ARGUMENT,
            "prefopt_sample: row %lld: n is %lld, expected at most %lld, the completions "
            "of positive probability, to draw without replacement",
            (long long)row, (long long)o->n, (long long)possible);
    /* No completion of a draw with replacement has this number. */
    uint64_t stream = pf_stream(pf_stream(o->round, (uint64_t)row), UINT64_MAX);
    for (int64_t i = 0; i < count; i++)
        r->key[i] = all->logp[i] - log(-log(pf_uniform(o->seed, stream, (uint64_t)i)));
    pf_heap_build(count, r->key, r->order);
    r->offsets[0] = 0;
    for (int64_t j = 0; j < o->n; j++) {
        int64_t i = pf_heap_pop(count - j, r->key, r->order);
        int64_t from = all->completion_offsets[i];
        int64_t length = all->completion_offsets[i + 1] - from, used = r->offsets[j];
        PF_TRY(pf_grow(r->context, (void **)&r->tokens, used, &r->token_capacity, used + length,
                       sizeof *r->tokens));
        memcpy(r->tokens + used, all->completions + from, (size_t)length * sizeof *r->tokens);
        r->offsets[j + 1] = used + length;
        r->logp[j] = all->logp[i];
    }
    prefopt_row drawn = {.struct_size = sizeof drawn,
                         .kind = PREFOPT_ROW_COMPLETIONS,
                         .n_completions = o->n,
                         .prompt = prompt->prompt,
                         .prompt_len = prompt->prompt_len,
                         .completions = r->tokens,
                         .completion_offsets = r->offsets,
                         .weight = prompt->weight,
                         .label = 1,
                         .logp = r->logp,
                         .sampler_logp = r->logp,
                         .extra = prompt->extra};
    return prefopt_dataset_append(samples, &drawn);
}

/* Rows first .. first + n_rows - 1: enumerated at once. */
static int32_t draw_rows(room *r, prefopt_policy *policy, const prefopt_dataset *prompts,
                         const prefopt_sampler_options *o, int64_t first, int64_t n_rows,
                         prefopt_dataset *samples)
{
    int64_t *rows = pf_alloc(r->context, n_rows, sizeof *rows);
    if (rows == NULL)
        return PREFOPT_ERR_MEMORY;
    for (int64_t i = 0; i < n_rows; i++)
        rows[i] = first + i;
    prefopt_dataset *some = NULL, *all = NULL;
    int32_t status = prefopt_dataset_select(&some, prompts, rows, n_rows);
    pf_free(r->context, rows);
    if (status == PREFOPT_OK)
        status = prefopt_policy_enumerate(&all, policy, some, MOST_COMPLETIONS);
    if (status < 0 && first > 0)
        pf_fail_in(status, "prefopt_sample: of the rows from %lld on", (long long)first);
    for (int64_t i = 0; i < n_rows && status == PREFOPT_OK; i++) {
        prefopt_row prompt = {.struct_size = sizeof prompt};
        prefopt_row completions = {.struct_size = sizeof completions};
        status = prefopt_dataset_row(some, i, &prompt);
        if (status == PREFOPT_OK)
            status = prefopt_dataset_row(all, i, &completions);
        if (status == PREFOPT_OK)
            status = draw_row(r, o, first + i, &prompt, &completions, samples);
    }
    prefopt_dataset_destroy(all);
    prefopt_dataset_destroy(some);
    return status;
}

/* Rows whose enumerations fit the byte budget, at least 1: tokens twice, offsets, columns. */
static int64_t rows_at_once(const prefopt_context *context, const prefopt_space *space,
                            int64_t count)
{
    int64_t each, all;
    if (!pf_mul(space->horizon, 2 * sizeof(int32_t), &each) || !pf_add(each, 64, &each) ||
        !pf_mul(each, count, &all))
        return 1;
    int64_t rows = pf_context_byte_budget(context) / all;
    return rows < 1 ? 1 : rows;
}

int32_t pf_sample_distinct(prefopt_dataset *samples, prefopt_context *context,
                           prefopt_policy *policy, const prefopt_dataset *prompts,
                           const prefopt_sampler_options *options, int64_t first, int64_t n_rows)
{
    int64_t count, n = options->n;
    PF_TRY(prefopt_space_count(&policy->space, &count));
    if (n > count)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "prefopt_sample: n is %lld, expected at most %lld, the completions there "
                       "are, to draw without replacement",
                       (long long)n, (long long)count);
    if (count > MOST_COMPLETIONS)
        return pf_fail(PREFOPT_ERR_UNSUPPORTED,
                       "prefopt_sample: there are %lld completions, expected at most %d to draw "
                       "without replacement",
                       (long long)count, MOST_COMPLETIONS);
    room r = {.context = context};
    int32_t status = PREFOPT_OK;
    if ((r.key = pf_alloc(context, count, sizeof *r.key)) == NULL ||
        (r.order = pf_alloc(context, count, sizeof *r.order)) == NULL ||
        (r.logp = pf_alloc(context, n, sizeof *r.logp)) == NULL ||
        (r.offsets = pf_alloc(context, n + 1, sizeof *r.offsets)) == NULL)
        status = PREFOPT_ERR_MEMORY;
    int64_t most = rows_at_once(context, &policy->space, count);
    for (int64_t done = 0; done < n_rows && status == PREFOPT_OK; done += most) {
        int64_t left = n_rows - done;
        status = draw_rows(&r, policy, prompts, options, first + done, left < most ? left : most,
                           samples);
    }
    pf_free(context, r.key);
    pf_free(context, r.order);
    pf_free(context, r.logp);
    pf_free(context, r.offsets);
    pf_free(context, r.tokens);
    return status;
}
