#include "tune_data.h"

#include "cli.h"

/* Where two tokens at most stand before a prompt, or a whole text is one row. */
typedef struct {
    int32_t *tokens;
    int64_t room;
} buffer;

static void need_room(buffer *b, int64_t n)
{
    if (n <= b->room)
        return;
    b->room = 2 * n;
    b->tokens = realloc(b->tokens, (size_t)b->room * sizeof *b->tokens);
    if (b->tokens == NULL) {
        fprintf(stderr, "no memory for %lld tokens\n", (long long)n);
        exit(1);
    }
}

/* The completion of a row that sft learns; -1: it has none. */
static int64_t learnt(const prefopt_row *row)
{
    if (row->kind == PREFOPT_ROW_PROMPT)
        return -1;
    return row->kind == PREFOPT_ROW_PAIR && row->label < 0.5;
}

/* A row for sft: the completion, or all completions where they are equals; with --whole-text the
 * prompt too, after the end of a text. */
static void add_demonstration(prefopt_dataset *to, const prefopt_row *row, int whole, int32_t eos,
                              buffer *b)
{
    prefopt_row out;
    CALL(prefopt_row_init(&out, sizeof out));
    int64_t first = learnt(row), n = 1;
    if (row->kind == PREFOPT_ROW_COMPLETIONS)
        n = row->n_completions;
    out.kind = PREFOPT_ROW_COMPLETIONS;
    out.weight = row->weight;
    for (int64_t i = first; i < first + n; i++) {
        const int32_t *completion = row->completions + row->completion_offsets[i];
        int64_t offsets[2] = {0, row->completion_offsets[i + 1] - row->completion_offsets[i]};
        out.n_completions = 1;
        out.completion_offsets = offsets;
        out.completions = completion;
        out.prompt = row->prompt;
        out.prompt_len = row->prompt_len;
        if (whole) {
            need_room(b, row->prompt_len + offsets[1]);
            if (row->prompt_len > 0)
                memcpy(b->tokens, row->prompt, (size_t)row->prompt_len * sizeof *b->tokens);
            memcpy(b->tokens + row->prompt_len, completion, (size_t)offsets[1] * sizeof *b->tokens);
            offsets[1] += row->prompt_len;
            out.completions = b->tokens;
            out.prompt_len = 0;
        }
        if (out.prompt_len == 0 && eos >= 0) {
            out.prompt = &eos;
            out.prompt_len = 1;
        }
        CALL(prefopt_dataset_append(to, &out));
    }
}

static int by_content(const void *a, const void *b, void *data)
{
    int64_t i = *(const int64_t *)a, j = *(const int64_t *)b;
    prefopt_row x = {.struct_size = sizeof x}, y = {.struct_size = sizeof y};
    CALL(prefopt_dataset_row(data, i, &x));
    CALL(prefopt_dataset_row(data, j, &y));
    int64_t n = x.prompt_len < y.prompt_len ? x.prompt_len : y.prompt_len;
    int order = n > 0 ? memcmp(x.prompt, y.prompt, (size_t)n * sizeof *x.prompt) : 0;
    if (order == 0)
        order = (x.prompt_len > y.prompt_len) - (x.prompt_len < y.prompt_len);
    return order != 0 ? order : (i > j) - (i < j);
}

/* Each distinct prompt once, in order of first appearance; an empty one is the end of a text. */
static void add_prompts(prefopt_dataset *to, prefopt_dataset *from, int32_t eos)
{
    int64_t n = prefopt_dataset_size(from), *order = calloc((size_t)n, sizeof *order);
    char *first = calloc((size_t)n, 1);
    if (order == NULL || first == NULL) {
        fprintf(stderr, "no memory for %lld prompts\n", (long long)n);
        exit(1);
    }
    for (int64_t i = 0; i < n; i++)
        order[i] = i;
    qsort_r(order, (size_t)n, sizeof *order, by_content, from);
    prefopt_row row = {.struct_size = sizeof row}, before = {.struct_size = sizeof before};
    for (int64_t k = 0; k < n; k++) {
        CALL(prefopt_dataset_row(from, order[k], &row));
        first[order[k]] =
            k == 0 || row.prompt_len != before.prompt_len ||
            (row.prompt_len > 0 &&
             memcmp(row.prompt, before.prompt, (size_t)row.prompt_len * sizeof *row.prompt) != 0);
        before = row;
    }
    for (int64_t i = 0; i < n; i++) {
        if (!first[i])
            continue;
        prefopt_row out;
        CALL(prefopt_dataset_row(from, i, &row));
        CALL(prefopt_row_init(&out, sizeof out));
        out.prompt = row.prompt_len == 0 && eos >= 0 ? &eos : row.prompt;
        out.prompt_len = row.prompt_len == 0 && eos >= 0 ? 1 : row.prompt_len;
        CALL(prefopt_dataset_append(to, &out));
    }
    free(order);
    free(first);
}

static void check_kinds(const tune_options *o, prefopt_dataset *data, const char *path)
{
    prefopt_columns c = {.struct_size = sizeof c};
    CALL(prefopt_dataset_columns(data, &c));
    for (int64_t i = 0; i < c.n_rows; i++) {
        const char *expected = NULL;
        if (o->command == TUNE_SFT && c.kind[i] == PREFOPT_ROW_PROMPT)
            expected = "\"completion\", or \"chosen\" and \"rejected\"";
        if ((o->command & (TUNE_PAIRS | TUNE_EVAL)) != 0 && c.kind[i] != PREFOPT_ROW_PAIR &&
            (c.kind[i] != PREFOPT_ROW_RANKING || o->command == TUNE_EVAL))
            expected = "\"chosen\" and \"rejected\"";
        if (expected != NULL) {
            fprintf(stderr, "%s: row %lld is nothing that tune %s learns from, expected %s\n", path,
                    (long long)i + 1, o->command_name, expected);
            prefopt_dataset_destroy(data);
            exit(1);
        }
    }
}

/* Rows as they were read, made into those that the command takes; `from` goes. */
static prefopt_dataset *shaped(const tune_options *o, const language_model *model,
                               prefopt_dataset *from)
{
    int samples = (o->command & (TUNE_SAMPLED | TUNE_COMPARE)) != 0;
    prefopt_dataset *out;
    if (!samples && o->command != TUNE_SFT)
        return from;
    CALL(prefopt_dataset_create(&out, model->context));
    if (samples)
        add_prompts(out, from, model->eos);
    else {
        buffer b = {0};
        prefopt_row row = {.struct_size = sizeof row};
        for (int64_t i = 0; i < prefopt_dataset_size(from); i++) {
            CALL(prefopt_dataset_row(from, i, &row));
            add_demonstration(out, &row, o->whole_text != 0, model->eos, &b);
        }
        free(b.tokens);
    }
    prefopt_dataset_destroy(from);
    return out;
}

static prefopt_dataset *split(const tune_options *o, const language_model *model,
                              prefopt_dataset **all, FILE *log)
{
    prefopt_dataset *kept, *held_out;
    CALL(prefopt_dataset_split(&kept, &held_out, *all, o->eval_fraction, (uint64_t)o->seed, 0));
    prefopt_dataset_destroy(*all);
    *all = kept;
    long long left = prefopt_dataset_size(kept), out = prefopt_dataset_size(held_out);
    if (left == 0 || out == 0) {
        fprintf(stderr,
                "--eval-fraction %g holds out %lld rows and leaves %lld: some of each are needed\n",
                o->eval_fraction, out, left);
        exit(1);
    }
    fprintf(log, "  %lld rows held out, with all of their prompts; %lld left\n", out, left);
    return shaped(o, model, held_out);
}

prefopt_dataset *tune_data_read(const tune_options *o, const language_model *model,
                                const char *path, FILE *log, prefopt_dataset **held_out)
{
    language_model limits = *model;
    int64_t max_prompt = (int64_t)o->max_prompt;
    int samples = (o->command & (TUNE_SAMPLED | TUNE_COMPARE)) != 0;
    int begin = !samples && o->command != TUNE_SFT; /* those two begin what they make of the rows */
    if (samples) { /* what is sampled has to find room after the prompt */
        int64_t room = model->positions - (int64_t)o->max_new;
        if (room < 1) {
            fprintf(stderr, "--max-new is %lld, the model has %lld positions for both\n",
                    (long long)o->max_new, (long long)model->positions);
            exit(2);
        }
        if (max_prompt == 0 || max_prompt > room)
            max_prompt = room;
        limits.positions = 0; /* the completions of the file are not used */
    } else if (o->command == TUNE_SFT && limits.positions > 1)
        limits.positions--; /* for the token before a text without prompt */
    prefopt_dataset *all = language_rows(&limits, path, max_prompt, (int64_t)o->max_completion,
                                         (int64_t)o->limit, log, begin);
    check_kinds(o, all, path);
    if (held_out != NULL)
        *held_out = split(o, model, &all, log);
    all = shaped(o, model, all);
    if (samples)
        fprintf(log, "  %lld distinct prompts\n", (long long)prefopt_dataset_size(all));
    return all;
}

void tune_data_some(prefopt_dataset **data, int64_t n, uint64_t seed)
{
    int64_t size = prefopt_dataset_size(*data);
    if (size <= n)
        return;
    int64_t *order = malloc((size_t)size * sizeof *order);
    prefopt_dataset *some;
    if (order == NULL) {
        fprintf(stderr, "no memory for the order of %lld rows\n", (long long)size);
        exit(1);
    }
    CALL(prefopt_shuffle_order(seed, 0, size, order));
    CALL(prefopt_dataset_select(&some, *data, order, n));
    free(order);
    prefopt_dataset_destroy(*data);
    *data = some;
}

static int by_tokens(const void *a, const void *b, void *data)
{
    const prefopt_sequences *s = data;
    int64_t i = *(const int64_t *)a, j = *(const int64_t *)b;
    int64_t n = s->offsets[i + 1] - s->offsets[i], m = s->offsets[j + 1] - s->offsets[j];
    if (n != m)
        return n < m ? -1 : 1;
    return n > 0 ? memcmp(s->tokens + s->offsets[i], s->tokens + s->offsets[j],
                          (size_t)n * sizeof *s->tokens)
                 : 0;
}

/* Whether two sequences have the same tokens. */
static int repeats(const prefopt_sequences *s)
{
    int64_t *order = malloc((size_t)(s->n > 0 ? s->n : 1) * sizeof *order);
    int found = 0;
    if (order == NULL) {
        fprintf(stderr, "no memory for the order of %lld rows\n", (long long)s->n);
        exit(1);
    }
    for (int64_t i = 0; i < s->n; i++)
        order[i] = i;
    qsort_r(order, (size_t)s->n, sizeof *order, by_tokens, (void *)(uintptr_t)s);
    for (int64_t i = 1; i < s->n && !found; i++)
        found = by_tokens(&order[i - 1], &order[i], (void *)(uintptr_t)s) == 0;
    free(order);
    return found;
}

double tune_data_length(const prefopt_dataset *data, int64_t *prompt)
{
    prefopt_sequences s = {.struct_size = sizeof s};
    CALL(prefopt_dataset_sequences(data, &s));
    double total = 0;
    *prompt = s.n > 0 && !repeats(&s) ? s.prompt_len[0] : -1;
    for (int64_t i = 0; i < s.n; i++) {
        total += (double)(s.offsets[i + 1] - s.offsets[i] - s.prompt_len[i]);
        if (s.prompt_len[i] != *prompt)
            *prompt = -1;
    }
    return s.n > 0 ? total / (double)s.n : 0;
}
