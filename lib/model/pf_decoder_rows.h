/* Internal to the decoder: its rows, each a prompt and pages with the keys and values of the tokens
 * after it. Rows that branched after a page was full share it. */
#ifndef PF_DECODER_ROWS_H
#define PF_DECODER_ROWS_H

#include "model/pf_decoder.h"

/* Positions of a page: no more than a sequence can have. */
static inline int64_t pf_page_length(const pf_shape *shape)
{
    int64_t most = shape->config.max_positions;
    return most < PF_DECODER_PAGE ? most : PF_DECODER_PAGE;
}

/* Numbers of keys and values of one position. */
static inline int64_t pf_position_numbers(const pf_shape *shape)
{
    return shape->config.n_layers * 2 * shape->config.width;
}

/* Positions after a prompt. */
typedef struct pf_page {
    struct pf_page *next; /* in the list of free ones */
    int64_t references;
    float *data; /* [layers, 2, heads, pf_page_length, head_width] */
} pf_page;

/* The prompt of each row, and its pages [n, n_pages]. */
typedef struct {
    int64_t n, n_pages, n_capacity, pages_capacity;
    int64_t *prompt;
    pf_page **pages;
} pf_row_table;

struct pf_slab;
typedef struct {
    prefopt_context *context; /* borrowed, as shape is */
    const pf_shape *shape;
    int64_t depth; /* tokens of each row after its prompt */
    pf_row_table now, next;
    struct pf_slab *slabs;
    pf_page *free;
    int64_t n_free, n_pages; /* of all slabs */
    int64_t *children;       /* [children_capacity]: of each row of `now` */
    int64_t children_capacity;
} pf_decoder_rows;

/* One row at each of n prompts. No rows are there. MEMORY. */
int32_t pf_decoder_rows_begin(pf_decoder_rows *rows, int64_t n);
/* Memory for a step to n children of rows parent[i]. MEMORY. */
int32_t pf_decoder_rows_reserve(pf_decoder_rows *rows, int64_t n, const int64_t *parent);
/* The rows become their children, each with room for one more position. Everything is reserved. */
void pf_decoder_rows_advance(pf_decoder_rows *rows, int64_t n, const int64_t *parent);
/* No rows; their memory is kept. */
void pf_decoder_rows_forget(pf_decoder_rows *rows);
void pf_decoder_rows_free(pf_decoder_rows *rows);

#endif
