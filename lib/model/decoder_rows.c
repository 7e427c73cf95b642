/* The decoder's rows and the pages that they share. */
#include "model/pf_decoder_rows.h"

/* Pages that were allocated together: large blocks are cheap to have (see context.c). */
typedef struct pf_slab {
    struct pf_slab *next;
    pf_page *pages;
    float *data;
} slab;

/* ---- memory */

static int32_t reserve_table(prefopt_context *context, pf_row_table *t, int64_t n, int64_t n_pages)
{
    int64_t entries;
    if (!pf_mul(n, n_pages, &entries))
        return pf_fail(PREFOPT_ERR_MEMORY, "decoder: %lld rows overflow", (long long)n);
    PF_TRY(pf_grow(context, (void **)&t->prompt, 0, &t->n_capacity, n, sizeof *t->prompt));
    return pf_grow(context, (void **)&t->pages, 0, &t->pages_capacity, entries + 1,
                   sizeof *t->pages);
}

/* n more free pages. */
static int32_t add_slab(pf_decoder_rows *rows, int64_t n)
{
    prefopt_context *context = rows->context;
    int64_t numbers = pf_position_numbers(rows->shape) * pf_page_length(rows->shape), all;
    slab *added = pf_calloc(context, 1, sizeof *added);
    if (added == NULL)
        return PREFOPT_ERR_MEMORY;
    added->pages = pf_alloc(context, n, sizeof *added->pages);
    if (added->pages != NULL)
        added->data = pf_alloc(context, pf_mul(n, numbers, &all) ? all : -1, sizeof *added->data);
    if (added->data == NULL) {
        pf_free(context, added->pages);
        pf_free(context, added);
        return PREFOPT_ERR_MEMORY;
    }
    for (int64_t i = 0; i < n; i++) {
        added->pages[i] = (pf_page){.next = rows->free, .data = added->data + i * numbers};
        rows->free = &added->pages[i];
    }
    added->next = rows->slabs;
    rows->slabs = added;
    rows->n_free += n;
    rows->n_pages += n;
    return PREFOPT_OK;
}

/* At least n free pages; a few more than asked for, where there are many. */
static int32_t reserve_pages(pf_decoder_rows *rows, int64_t n)
{
    int64_t missing = n - rows->n_free, few = rows->n_pages / 8;
    return missing <= 0 ? PREFOPT_OK : add_slab(rows, missing > few ? missing : few);
}

static pf_page *take_page(pf_decoder_rows *rows)
{
    pf_page *page = rows->free;
    rows->free = page->next;
    rows->n_free--;
    page->references = 1;
    return page;
}

/* Empties the table of rows that are. */
static void release(pf_decoder_rows *rows)
{
    pf_row_table *t = &rows->now;
    for (int64_t k = 0; k < t->n * t->n_pages; k++) {
        pf_page *page = t->pages[k];
        if (--page->references > 0)
            continue;
        page->next = rows->free;
        rows->free = page;
        rows->n_free++;
    }
    t->n = t->n_pages = 0;
}

void pf_decoder_rows_forget(pf_decoder_rows *rows)
{
    release(rows);
    rows->depth = 0;
}

void pf_decoder_rows_free(pf_decoder_rows *rows)
{
    prefopt_context *c = rows->context;
    for (slab *s = rows->slabs, *next; s != NULL; s = next) {
        next = s->next;
        pf_free(c, s->pages);
        pf_free(c, s->data);
        pf_free(c, s);
    }
    void *arrays[] = {rows->now.prompt, rows->now.pages, rows->next.prompt, rows->next.pages,
                      rows->children};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        pf_free(c, arrays[i]);
}

/* ---- steps */

int32_t pf_decoder_rows_begin(pf_decoder_rows *rows, int64_t n)
{
    PF_TRY(reserve_table(rows->context, &rows->now, n, 0));
    for (int64_t i = 0; i < n; i++)
        rows->now.prompt[i] = i;
    rows->now.n = n;
    return PREFOPT_OK;
}

/* How many pages the step needs: where no page is begun, one for each child of a row but its
 * first, which goes on in its parent's. */
static int64_t pages_needed(pf_decoder_rows *rows, int64_t n, const int64_t *parent)
{
    if (rows->depth % pf_page_length(rows->shape) == 0)
        return n;
    int64_t needed = 0;
    memset(rows->children, 0, (size_t)rows->now.n * sizeof *rows->children);
    for (int64_t i = 0; i < n; i++)
        needed += rows->children[parent[i]]++ > 0;
    return needed;
}

int32_t pf_decoder_rows_reserve(pf_decoder_rows *rows, int64_t n, const int64_t *parent)
{
    int64_t n_pages = rows->depth / pf_page_length(rows->shape) + 1;
    PF_TRY(pf_grow(rows->context, (void **)&rows->children, 0, &rows->children_capacity,
                   rows->now.n, sizeof *rows->children));
    PF_TRY(reserve_table(rows->context, &rows->next, n, n_pages));
    return reserve_pages(rows, pages_needed(rows, n, parent));
}

/* The first `used` positions of a page. */
static void copy_page(const pf_shape *shape, pf_page *to, const pf_page *from, int64_t used)
{
    int64_t planes = shape->config.n_layers * 2 * shape->config.n_heads;
    int64_t stride = pf_page_length(shape) * shape->head_width;
    for (int64_t i = 0; i < planes; i++)
        memcpy(to->data + i * stride, from->data + i * stride,
               (size_t)(used * shape->head_width) * sizeof(float));
}

void pf_decoder_rows_advance(pf_decoder_rows *rows, int64_t n, const int64_t *parent)
{
    pf_row_table *old = &rows->now, *t = &rows->next;
    int64_t used = rows->depth % pf_page_length(rows->shape);
    t->n = n;
    t->n_pages = rows->depth / pf_page_length(rows->shape) + 1;
    memset(rows->children, 0, (size_t)old->n * sizeof *rows->children);
    for (int64_t i = 0; i < n; i++) {
        pf_page **from = old->pages + parent[i] * old->n_pages, **to = t->pages + i * t->n_pages;
        t->prompt[i] = old->prompt[parent[i]];
        bool again = rows->children[parent[i]]++ > 0;
        for (int64_t p = 0; p < t->n_pages; p++) {
            bool fills = p == t->n_pages - 1; /* the page that takes the new token */
            if (!fills || (used > 0 && !again)) {
                to[p] = from[p];
                to[p]->references++;
                continue;
            }
            to[p] = take_page(rows);
            if (used > 0)
                copy_page(rows->shape, to[p], from[p], used);
        }
    }
    release(rows);
    pf_row_table swap = *old;
    *old = *t;
    *t = swap;
    rows->depth++;
}
