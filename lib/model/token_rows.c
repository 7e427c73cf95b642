/* The ragged batch: sequences grouped by prompt, one row a token, every prompt once. */
#include <stdlib.h>

#include "model/pf_network.h"

/* ---------------------------------------------------------------- prompts */

static int64_t completion_len(const prefopt_sequences *in, int64_t i)
{
    return pf_sequence_len(in, i) - in->prompt_len[i];
}

/* Whether anything of sequence i is to be computed. */
static bool is_wanted(const pf_prompts *prompts, int64_t i, const double *grad)
{
    if (grad != NULL && grad[i] == 0)
        return false;
    return prompts->head == PF_HEAD_SCORE || completion_len(prompts->in, i) > 0;
}

int32_t pf_prompts_create(pf_prompts *prompts, prefopt_context *context,
                          const prefopt_sequences *in, int32_t head, const double *grad)
{
    *prompts = (pf_prompts){.context = context, .in = in, .head = head};
    pf_sequence_map *map = NULL;
    int64_t *first = NULL;
    prompts->prompt = pf_alloc(context, in->n, sizeof *prompts->prompt);
    prompts->order = pf_alloc(context, in->n, sizeof *prompts->order);
    int32_t status =
        prompts->prompt == NULL || prompts->order == NULL ? PREFOPT_ERR_MEMORY : PREFOPT_OK;
    if (status == PREFOPT_OK)
        status = pf_sequence_map_create(&map, context, in, PF_MAP_PROMPTS, prompts->prompt);
    if (status == PREFOPT_OK) {
        prompts->n_prompts = pf_sequence_map_size(map);
        first = pf_calloc(context, prompts->n_prompts + 1, sizeof *first);
        status = first == NULL ? PREFOPT_ERR_MEMORY : PREFOPT_OK;
    }
    if (status == PREFOPT_OK) { /* counting sort */
        for (int64_t i = 0; i < in->n; i++)
            first[prompts->prompt[i] + 1] += is_wanted(prompts, i, grad);
        for (int64_t p = 0; p < prompts->n_prompts; p++)
            first[p + 1] += first[p];
        prompts->n = first[prompts->n_prompts];
        for (int64_t i = 0; i < in->n; i++)
            if (is_wanted(prompts, i, grad))
                prompts->order[first[prompts->prompt[i]]++] = i;
    } else {
        pf_prompts_clear(prompts);
    }
    pf_free(context, first);
    pf_sequence_map_destroy(map);
    return status;
}

void pf_prompts_clear(pf_prompts *prompts)
{
    pf_free(prompts->context, prompts->prompt);
    pf_free(prompts->context, prompts->order);
    prompts->prompt = prompts->order = NULL;
}

/* LOGITS: nothing is asked of a completion's last token. */
static int64_t segment_rows(const pf_prompts *prompts, int64_t i)
{
    int64_t n = completion_len(prompts->in, i);
    return prompts->head == PF_HEAD_LOGITS && n > 0 ? n - 1 : n;
}

static int64_t segment_targets(const pf_prompts *prompts, int64_t i)
{
    return prompts->head == PF_HEAD_LOGITS ? completion_len(prompts->in, i) : 1;
}

void pf_prompts_add(const pf_prompts *prompts, int64_t at, bool fresh, pf_row_count *count)
{
    int64_t i = prompts->order[at];
    count->n_rows += segment_rows(prompts, i) + (fresh ? prompts->in->prompt_len[i] : 0);
    count->n_targets += segment_targets(prompts, i);
}

pf_row_count pf_prompts_count(const pf_prompts *prompts, int64_t first, int64_t end)
{
    pf_row_count count = {0, 0};
    for (int64_t at = first; at < end; at++)
        pf_prompts_add(prompts, at,
                       at == first || prompts->prompt[prompts->order[at]] !=
                                          prompts->prompt[prompts->order[at - 1]],
                       &count);
    return count;
}

/* ---------------------------------------------------------------- rows */

void pf_token_rows_clear(pf_token_rows *rows, prefopt_context *context)
{
    pf_free(context, rows->memory);
    *rows = (pf_token_rows){.memory = NULL};
}

/* The next n elements of `size` bytes of a block; all starts are multiples of 8. */
static void *cut(char **at, int64_t n, size_t size)
{
    void *start = *at;
    *at += ((size_t)n * size + 7) / 8 * 8;
    return start;
}

static int32_t reserve(pf_token_rows *rows, prefopt_context *context, int64_t n_sequences)
{
    size_t a_row = sizeof *rows->token + sizeof *rows->position;
    size_t a_target = sizeof *rows->target_row + 2 * sizeof *rows->target_token;
    size_t a_sequence = sizeof *rows->groups + sizeof *rows->segments + sizeof *rows->first_target;
    int64_t bytes = rows->n_rows * (int64_t)a_row + rows->n_targets * (int64_t)a_target +
                    (n_sequences + 1) * (int64_t)a_sequence + 64;
    if (bytes > rows->capacity) {
        pf_free(context, rows->memory);
        rows->capacity = 0;
        rows->memory = pf_alloc(context, bytes, 1);
        if (rows->memory == NULL)
            return PREFOPT_ERR_MEMORY;
        rows->capacity = bytes;
    }
    char *at = rows->memory;
    rows->position = cut(&at, rows->n_rows, sizeof *rows->position);
    rows->target_row = cut(&at, rows->n_targets, sizeof *rows->target_row);
    rows->groups = cut(&at, n_sequences, sizeof *rows->groups);
    rows->segments = cut(&at, n_sequences, sizeof *rows->segments);
    rows->first_target = cut(&at, n_sequences + 1, sizeof *rows->first_target);
    rows->token = cut(&at, rows->n_rows, sizeof *rows->token);
    rows->target_token = cut(&at, rows->n_targets, sizeof *rows->target_token);
    rows->before_token = cut(&at, rows->n_targets, sizeof *rows->before_token);
    return PREFOPT_OK;
}

/* Rows of the tokens of a sequence from position `from` on, n of them. */
static int64_t add_rows(pf_token_rows *rows, int64_t at, const int32_t *tokens, int64_t from,
                        int64_t n)
{
    for (int64_t k = 0; k < n; k++) {
        rows->token[at + k] = tokens[from + k];
        rows->position[at + k] = from + k;
    }
    rows->longest = from + n > rows->longest ? from + n : rows->longest;
    return at + n;
}

static void add_targets(pf_token_rows *rows, const pf_prompts *prompts, int64_t i,
                        const pf_prompt_group *group, const pf_segment *segment, int64_t *n)
{
    if (prompts->head == PF_HEAD_SCORE) {
        rows->target_row[*n] =
            segment->n > 0 ? segment->first + segment->n - 1 : group->first + group->n - 1;
        rows->before_token[*n] = rows->token[rows->target_row[*n]];
        rows->target_token[(*n)++] = -1;
        return;
    }
    const int32_t *completion = pf_sequence_tokens(prompts->in, i) + prompts->in->prompt_len[i];
    for (int64_t k = 0; k < completion_len(prompts->in, i); k++) {
        rows->target_row[*n] = k == 0 ? group->first + group->n - 1 : segment->first + k - 1;
        rows->before_token[*n] = rows->token[rows->target_row[*n]];
        rows->target_token[(*n)++] = completion[k];
    }
}

int32_t pf_token_rows_build(pf_token_rows *rows, const pf_prompts *prompts, int64_t first,
                            int64_t end)
{
    pf_row_count count = pf_prompts_count(prompts, first, end);
    rows->n_rows = count.n_rows;
    rows->n_targets = count.n_targets;
    rows->n_groups = rows->longest = 0;
    rows->n_segments = end - first;
    PF_TRY(reserve(rows, prompts->context, end - first));
    int64_t at = 0, target = 0;
    for (int64_t s = 0; s < end - first; s++) {
        int64_t i = prompts->order[first + s];
        const int32_t *tokens = pf_sequence_tokens(prompts->in, i);
        if (s == 0 || prompts->prompt[i] != prompts->prompt[prompts->order[first + s - 1]]) {
            int64_t n = prompts->in->prompt_len[i];
            rows->groups[rows->n_groups++] =
                (pf_prompt_group){.first = at, .n = n, .first_segment = s};
            at = add_rows(rows, at, tokens, 0, n);
        }
        pf_prompt_group *group = &rows->groups[rows->n_groups - 1];
        group->end_segment = s + 1;
        rows->segments[s] = (pf_segment){.first = at, .n = segment_rows(prompts, i), .sequence = i};
        at = add_rows(rows, at, tokens, group->n, rows->segments[s].n);
        rows->first_target[s] = target;
        add_targets(rows, prompts, i, group, &rows->segments[s], &target);
    }
    rows->first_target[end - first] = target;
    return PREFOPT_OK;
}
