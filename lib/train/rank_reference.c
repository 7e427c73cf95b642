/* What a reference says of sequences, asked by several ranks: each asks for its part of those that
 * have no value yet, parts of as many tokens as can be, and all get all.
 *
 * A reference without a content hash may be another on each rank without anybody knowing: then each
 * rank asks its own for everything. */
#include <math.h>

#include "model/pf_reference.h"
#include "train/pf_rank_reference.h"
#include "train/pf_saved.h"

/* Tokens that a rank scores between two looks at its callback and at the others. */
enum { PIECE_TOKENS = 4096 };

/* What must be the same on all ranks. */
typedef struct {
    int64_t asks, rows, n; /* asks: 0: there is no reference; n: sequences */
    uint64_t data, reference;
} terms;

static int32_t compare(const terms *here, const terms *there)
{
    if (here->asks != there->asks)
        return pf_fail(PREFOPT_ERR_STATE, "reference is %s, but %s on rank 0",
                       here->asks ? "given" : "NULL", there->asks ? "given" : "NULL");
    if (here->rows != there->rows)
        return pf_fail(PREFOPT_ERR_STATE, "the number of rows is %lld, but %lld on rank 0",
                       (long long)here->rows, (long long)there->rows);
    if (here->n != there->n)
        return pf_fail(PREFOPT_ERR_STATE,
                       "the number of distinct sequences is %lld, but %lld on rank 0",
                       (long long)here->n, (long long)there->n);
    if (here->data != there->data)
        return pf_fail(PREFOPT_ERR_STATE, "the data are not those of rank 0");
    if (here->reference != there->reference)
        return pf_fail(PREFOPT_ERR_STATE,
                       "the reference has hash %016llx, but that of rank 0 %016llx",
                       (unsigned long long)here->reference, (unsigned long long)there->reference);
    return PREFOPT_OK;
}

/* first[r]: where the part of rank r begins; first[size]: the end. */
static void cut(const pf_shared_reference *s, int64_t size, int64_t *first)
{
    int64_t n = s->distinct->n, r = 0;
    double all = 0, before = 0;
    for (int64_t i = 0; i < n; i++)
        all += isnan(s->value[i]) ? (double)pf_sequence_len(s->distinct, i) : 0;
    for (int64_t i = 0; i < n; i++) {
        while (r < size && before >= all * (double)r / (double)size)
            first[r++] = i;
        before += isnan(s->value[i]) ? (double)pf_sequence_len(s->distinct, i) : 0;
    }
    while (r <= size)
        first[r++] = n;
}

/* One piece of this rank's part, or all of it where nobody looks. */
static int32_t score_piece(const pf_shared_reference *s, const prefopt_sequences *part,
                           double *value, int64_t *at)
{
    int64_t most = s->progress != NULL ? PIECE_TOKENS : INT64_MAX;
    while (*at < part->n) {
        PF_TRY(pf_reference_score(s->reference, part, value, most, at));
        if (s->progress != NULL)
            break;
    }
    if (s->progress == NULL)
        return PREFOPT_OK;
    double done = part->n > 0 ? (double)*at / (double)part->n : 1;
    int64_t rows = (int64_t)(done * (double)s->rows);
    return s->progress(s->payload, rows, s->rows) != 0 ? PREFOPT_STOPPED : PREFOPT_OK;
}

/* This rank's part. All ranks end together; STOPPED when something is left to do. */
static int32_t score_part(pf_ranks *ranks, const pf_shared_reference *s, int64_t first, int64_t n)
{
    prefopt_sequences part = pf_sequences_part(s->distinct, first, n);
    int64_t at = 0;
    double left;
    do {
        int32_t status = score_piece(s, &part, s->value + first, &at);
        status = pf_ranks_exchange(ranks, status, NULL);
        if (status < 0)
            return status;
        left = (double)(n - at);
        PF_TRY(pf_ranks_sum(ranks, &left, 1));
        if (left > 0 && status != PREFOPT_OK)
            return status;
    } while (left > 0);
    return PREFOPT_OK;
}

/* Rank r's values from `first` on to everybody. */
static int32_t send(pf_ranks *ranks, const pf_shared_reference *s, int64_t first, int64_t n,
                    int64_t r)
{
    if (n == 0)
        return PREFOPT_OK;
    return pf_ranks_broadcast(ranks, s->value + first, n * (int64_t)sizeof *s->value, r);
}

/* first: room for size + 1. */
static int32_t ask(pf_ranks *ranks, const pf_shared_reference *s, int64_t *first)
{
    int64_t size = ranks->calls.size, rank = ranks->calls.rank, n = s->distinct->n;
    if (s->hash == 0)
        return score_part(ranks, s, 0, n);
    /* What is missing is what rank 0 misses. */
    PF_TRY(send(ranks, s, 0, n, 0));
    cut(s, size, first);
    int32_t status = score_part(ranks, s, first[rank], first[rank + 1] - first[rank]);
    for (int64_t r = 0; r < size && status >= 0; r++) {
        int32_t sent = send(ranks, s, first[r], first[r + 1] - first[r], r);
        status = sent != PREFOPT_OK ? sent : status;
    }
    return status;
}

int32_t pf_ranks_ask(pf_ranks *ranks, prefopt_context *context, int32_t status,
                     const pf_shared_reference *s)
{
    int64_t *first = NULL;
    PF_TRY(pf_ranks_exchange(ranks, status, NULL));
    terms here = {.asks = s->reference != NULL,
                  .rows = s->rows,
                  .n = s->distinct->n,
                  .data = s->data,
                  .reference = s->hash};
    terms there = here;
    PF_TRY(pf_ranks_broadcast(ranks, &there, sizeof there, 0));
    status = compare(&here, &there);
    if (status == PREFOPT_OK) {
        first = pf_alloc(context, ranks->calls.size + 1, sizeof *first);
        status = first != NULL ? PREFOPT_OK : PREFOPT_ERR_MEMORY;
    }
    status = pf_ranks_exchange(ranks, status, NULL);
    if (status == PREFOPT_OK && s->reference != NULL)
        status = ask(ranks, s, first);
    pf_free(context, first);
    return status;
}

/* ---- of a trainer's rows */

int32_t pf_trainer_reference(prefopt_trainer *trainer, const prefopt_reference *reference,
                             const prefopt_dataset *data, double *value)
{
    const pf_rows *rows = trainer->rows;
    pf_shared_reference s = {
        .reference = reference, .distinct = pf_sequence_map_view(rows->map), .value = value};
    if (pf_ranks_alone(&trainer->ranks))
        return reference == NULL
                   ? PREFOPT_OK
                   : pf_reference_of_rows(reference, data, s.distinct, rows->sequence, value);
    PF_TRY(pf_ranks_check(trainer));
    int32_t status = PREFOPT_OK;
    s.rows = rows->n;
    s.data = pf_rows_hash(rows);
    if (reference != NULL)
        status = pf_reference_known(reference, data, s.distinct, rows->sequence, s.value, &s.hash);
    if (reference != NULL && status == PREFOPT_OK && s.hash == 0)
        status = pf_reference_hash(reference, &s.hash);
    return pf_ranks_ask(&trainer->ranks, trainer->context, status, &s);
}

/* ---- of a dataset */

static int32_t annotate(pf_ranks *ranks, const prefopt_reference *reference,
                        prefopt_dataset *dataset, prefopt_annotate_fn progress, void *payload)
{
    prefopt_context *context = reference->policy->context;
    static const prefopt_sequences none;
    pf_annotation a = {.reference = reference, .distinct = &none};
    bool empty = prefopt_dataset_size(dataset) == 0;
    int32_t status = empty ? PREFOPT_OK : pf_annotation_begin(&a, reference, dataset);
    bool begun = !empty && status == PREFOPT_OK;
    pf_shared_reference s = {.reference = reference,
                             .distinct = a.distinct,
                             .value = a.value,
                             .data = prefopt_dataset_hash(dataset),
                             .hash = a.hash,
                             .rows = prefopt_dataset_size(dataset),
                             .progress = progress,
                             .payload = payload};
    status = pf_ranks_ask(ranks, context, status, &s);
    if (begun && status >= 0)
        pf_annotation_write(&a);
    if (begun)
        pf_annotation_end(&a);
    return status;
}

int32_t prefopt_collective_annotate(const prefopt_collective *collective,
                                    const prefopt_reference *reference, prefopt_dataset *dataset,
                                    prefopt_annotate_fn progress, void *payload)
{
    PF_REQUIRE(reference);
    PF_REQUIRE(dataset);
    pf_ranks ranks = {.numbers = NULL};
    PF_TRY(pf_ranks_read(&ranks, collective));
    if (pf_ranks_alone(&ranks))
        return prefopt_reference_annotate(reference, dataset, progress, payload);
    prefopt_context *context = reference->policy->context;
    PF_TRY(pf_ranks_init(&ranks, context));
    int32_t status = annotate(&ranks, reference, dataset, progress, payload);
    pf_ranks_clear(&ranks, context);
    return status;
}
