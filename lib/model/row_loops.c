/* Loops over the rows of a batch, and over the columns of a matrix, on all threads. */
#include "math/pf_ops.h"
#include "model/pf_network.h"

typedef struct {
    pf_rows_fn *fn;
    void *payload;
    int64_t n_rows;
} row_loop;

static void row_chunk(void *payload, int64_t task)
{
    const row_loop *loop = payload;
    int64_t first = task * PF_NORM_CHUNK, left = loop->n_rows - first;
    loop->fn(loop->payload, first, left < PF_NORM_CHUNK ? left : PF_NORM_CHUNK);
}

void pf_for_rows(prefopt_context *context, int64_t n_rows, pf_rows_fn *fn, void *payload)
{
    row_loop loop = {fn, payload, n_rows};
    pf_parallel_for(context, (n_rows + PF_NORM_CHUNK - 1) / PF_NORM_CHUNK, row_chunk, &loop);
}

typedef struct {
    int64_t n_rows, columns;
    const float *x;
    float *sum;
} column_loop;

static void sum_columns(void *payload, int64_t task)
{
    const column_loop *loop = payload;
    int64_t first = task * PF_COLUMN_CHUNK, left = loop->columns - first;
    pf_add_columns(loop->n_rows, left < PF_COLUMN_CHUNK ? left : PF_COLUMN_CHUNK, loop->x + first,
                   loop->columns, loop->sum + first);
}

void pf_sum_rows(prefopt_context *context, int64_t n_rows, int64_t columns, const float *x,
                 float *sum)
{
    column_loop loop = {.n_rows = n_rows, .columns = columns, .x = x, .sum = sum};
    pf_parallel_for(context, (columns + PF_COLUMN_CHUNK - 1) / PF_COLUMN_CHUNK, sum_columns, &loop);
}
