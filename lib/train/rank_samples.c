/* Samples that the ranks have drawn, each of its part of the prompts: on all ranks the dataset that
 * one process would have drawn. */
#include "train/pf_sampled.h"

/* Of the samples of one rank, n a row: lengths, then the columns, `rows * n` doubles each. */
enum { LENGTHS, LOGP, SAMPLER_LOGP, SCORE, COLUMNS };

typedef struct {
    prefopt_context *context;
    int64_t n;                 /* completions a row */
    double *numbers;           /* the blocks of all ranks, one after the other */
    int32_t *tokens;           /* of the completions, the same */
    int64_t *offsets;          /* n + 1 */
    double *n_tokens;          /* of each rank; doubles, to be summed */
    int64_t first_row, n_rows; /* of the rank at hand */
} board;

static void clear(board *b)
{
    void *const arrays[] = {b->numbers, b->tokens, b->offsets, b->n_tokens};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        pf_free(b->context, arrays[i]);
}

static double *block(const board *b, int64_t column)
{
    return b->numbers + (COLUMNS * b->first_row + column * b->n_rows) * b->n;
}

/* This rank's own block and tokens. */
static int32_t write_own(board *b, const prefopt_dataset *samples, int32_t *tokens)
{
    prefopt_sequences in = {.struct_size = sizeof in};
    prefopt_columns columns = {.struct_size = sizeof columns};
    PF_TRY(prefopt_dataset_sequences(samples, &in));
    PF_TRY(prefopt_dataset_columns(samples, &columns));
    for (int64_t i = 0; i < in.n; i++) {
        int64_t length = pf_sequence_len(&in, i) - in.prompt_len[i];
        if (length > 0)
            memcpy(tokens, pf_sequence_tokens(&in, i) + in.prompt_len[i],
                   (size_t)length * sizeof *tokens);
        tokens += length;
        block(b, LENGTHS)[i] = (double)length;
        block(b, LOGP)[i] = columns.logp[i];
        block(b, SAMPLER_LOGP)[i] = columns.sampler_logp[i];
        block(b, SCORE)[i] = columns.score[i];
    }
    return PREFOPT_OK;
}

/* Appends the rows of the rank at hand. */
static int32_t append_rows(board *b, const prefopt_dataset *prompts, const int32_t *tokens,
                           prefopt_dataset *to)
{
    for (int64_t k = 0; k < b->n_rows; k++) {
        prefopt_row prompt = {.struct_size = sizeof prompt};
        PF_TRY(prefopt_dataset_row(prompts, b->first_row + k, &prompt));
        b->offsets[0] = 0;
        for (int64_t j = 0; j < b->n; j++)
            b->offsets[j + 1] = b->offsets[j] + (int64_t)block(b, LENGTHS)[k * b->n + j];
        prefopt_row row = {.struct_size = sizeof row,
                           .kind = PREFOPT_ROW_COMPLETIONS,
                           .n_completions = b->n,
                           .prompt = prompt.prompt,
                           .prompt_len = prompt.prompt_len,
                           .completions = tokens,
                           .completion_offsets = b->offsets,
                           .weight = prompt.weight,
                           .label = 1,
                           .logp = block(b, LOGP) + k * b->n,
                           .sampler_logp = block(b, SAMPLER_LOGP) + k * b->n,
                           .score = block(b, SCORE) + k * b->n,
                           .extra = prompt.extra};
        PF_TRY(prefopt_dataset_append(to, &row));
        tokens += b->offsets[b->n];
    }
    return PREFOPT_OK;
}

/* Where the tokens of rank r begin; r = size: all. */
static int64_t tokens_before(const board *b, int64_t r)
{
    int64_t n = 0;
    for (int64_t i = 0; i < r; i++)
        n += (int64_t)b->n_tokens[i];
    return n;
}

static int32_t make_room(board *b, const prefopt_trainer *trainer, int64_t rows)
{
    int64_t n;
    if (!pf_mul(rows, b->n, &n) || !pf_mul(n, COLUMNS, &n))
        return pf_fail(PREFOPT_ERR_MEMORY, "a size overflows: %lld samples of %lld prompts",
                       (long long)b->n, (long long)rows);
    b->numbers = pf_alloc(b->context, n, sizeof *b->numbers);
    b->offsets = pf_alloc(b->context, b->n + 1, sizeof *b->offsets);
    b->tokens =
        pf_alloc(b->context, tokens_before(b, trainer->ranks.calls.size), sizeof *b->tokens);
    return b->numbers == NULL || b->offsets == NULL || b->tokens == NULL ? PREFOPT_ERR_MEMORY
                                                                         : PREFOPT_OK;
}

static void look_at(board *b, const prefopt_trainer *trainer, int64_t r, int64_t rows)
{
    pf_ranks_part(&trainer->ranks, r, rows, &b->first_row, &b->n_rows);
}

/* Everybody's blocks to everybody. */
static int32_t send(board *b, prefopt_trainer *trainer, int64_t rows)
{
    for (int64_t r = 0; r < trainer->ranks.calls.size; r++) {
        look_at(b, trainer, r, rows);
        PF_TRY(pf_ranks_broadcast(&trainer->ranks, block(b, 0),
                                  COLUMNS * b->n_rows * b->n * (int64_t)sizeof *b->numbers, r));
        PF_TRY(pf_ranks_broadcast(&trainer->ranks, b->tokens + tokens_before(b, r),
                                  (int64_t)b->n_tokens[r] * (int64_t)sizeof *b->tokens, r));
    }
    return PREFOPT_OK;
}

static int32_t gather(board *b, prefopt_trainer *trainer, const prefopt_dataset *prompts,
                      const prefopt_dataset *own, prefopt_dataset *all)
{
    int64_t size = trainer->ranks.calls.size, rank = trainer->ranks.calls.rank;
    int64_t rows = prefopt_dataset_size(prompts);
    prefopt_sequences in = {.struct_size = sizeof in};
    b->n_tokens = pf_calloc(b->context, size, sizeof *b->n_tokens);
    int32_t status = b->n_tokens != NULL ? prefopt_dataset_sequences(own, &in) : PREFOPT_ERR_MEMORY;
    PF_TRY(pf_ranks_exchange(&trainer->ranks, status, NULL));
    for (int64_t i = 0; i < in.n; i++)
        b->n_tokens[rank] += (double)(pf_sequence_len(&in, i) - in.prompt_len[i]);
    PF_TRY(pf_ranks_sum(&trainer->ranks, b->n_tokens, size));
    status = make_room(b, trainer, rows);
    if (status == PREFOPT_OK) {
        look_at(b, trainer, rank, rows);
        status = write_own(b, own, b->tokens + tokens_before(b, rank));
    }
    PF_TRY(pf_ranks_exchange(&trainer->ranks, status, NULL));
    PF_TRY(send(b, trainer, rows));
    for (int64_t r = 0; r < size; r++) {
        look_at(b, trainer, r, rows);
        PF_TRY(append_rows(b, prompts, b->tokens + tokens_before(b, r), all));
    }
    return PREFOPT_OK;
}

int32_t pf_ranks_gather(prefopt_trainer *trainer, int32_t status, const prefopt_dataset *prompts,
                        int64_t n, prefopt_dataset **samples)
{
    if (pf_ranks_alone(&trainer->ranks))
        return status;
    prefopt_dataset *own = status == PREFOPT_OK ? *samples : NULL, *all = NULL;
    if (status == PREFOPT_OK)
        status = prefopt_dataset_create(&all, trainer->context);
    status = pf_ranks_exchange(&trainer->ranks, status, NULL);
    if (status == PREFOPT_OK) {
        board b = {.context = trainer->context, .n = n};
        status = gather(&b, trainer, prompts, own, all);
        clear(&b);
    }
    prefopt_dataset_destroy(own);
    if (status == PREFOPT_OK)
        *samples = all;
    else
        prefopt_dataset_destroy(all);
    return status;
}
