/* One line with texts to one row: its texts are encoded, the prompt of a pair is found where it has
 * none, what is too long is cut, and what then says nothing is left out. */
#include <stdlib.h>

#include "data/pf_text.h"

#if PF_HAVE_JSON

int32_t pf_text_begin(pf_text_reader *r, prefopt_context *context,
                      const prefopt_tokenizer *tokenizer, const char *name,
                      const prefopt_text_options *options)
{
    *r = (pf_text_reader){.options = options, .cuts = pf_text_cuts(tokenizer)};
    PF_TRY(pf_encoder_begin(&r->encoder, tokenizer));
    int32_t status = pf_jsonl_begin(&r->lines, context, name);
    if (status != PREFOPT_OK)
        pf_encoder_end(&r->encoder);
    return status;
}

void pf_text_end(pf_text_reader *r)
{
    prefopt_context *context = r->lines.context;
    prefopt_dataset *data = NULL;
    pf_encoder_end(&r->encoder);
    pf_free(context, r->parts);
    pf_free(context, r->views);
    pf_free(context, r->bytes.data);
    pf_free(context, r->texts.data);
    pf_free(context, r->rest.data);
    pf_free(context, r->notes);
    pf_jsonl_end(&r->lines, PREFOPT_OK, &data);
    prefopt_dataset_destroy(data);
}

/* ---------------------------------------------------------------- texts */

/* Adds a text to the parts and encodes it. */
static int32_t read_text(pf_text_reader *r, pf_jsonl_place at, const json_t *value)
{
    const pf_jsonl_reader *lines = &r->lines;
    pf_encoder *e = &r->encoder;
    if (json_is_array(value) && json_is_object(json_array_get(value, 0)))
        return pf_jsonl_unexpected(lines, at, value,
                                   "text; chat messages have to be made one text first, by the "
                                   "model's own template");
    if (json_is_array(value) && json_is_integer(json_array_get(value, 0)))
        return pf_jsonl_unexpected(lines, at, value,
                                   "text; a file of tokens is for prefopt_dataset_read_jsonl");
    if (!json_is_string(value))
        return pf_jsonl_unexpected(lines, at, value, "text");
    int64_t n_parts = r->lines.n_completions + 1; /* the prompt comes first, empty or not */
    PF_TRY(pf_grow(lines->context, &r->parts, n_parts, &r->part_capacity, n_parts + 1,
                   sizeof(pf_text_part)));
    pf_text_part *part = (pf_text_part *)r->parts + n_parts;
    *part = (pf_text_part){.text = json_string_value(value),
                           .n_bytes = (int64_t)json_string_length(value),
                           .begin = e->n};
    if (at.i < 0)
        pf_text_take(r, at.field, &part->text, &part->n_bytes);
    if (part->n_bytes > PF_ENCODE_MOST)
        return pf_fail(PREFOPT_ERR_FORMAT,
                       "%s:%lld: field \"%s\": a text of %lld bytes, expected at most %d",
                       lines->name, (long long)lines->line, at.field, (long long)part->n_bytes,
                       (int)PF_ENCODE_MOST);
    int32_t status = pf_encode(e, part->text, part->n_bytes);
    if (status != PREFOPT_OK)
        return pf_fail_in(status == PREFOPT_ERR_ARGUMENT ? PREFOPT_ERR_FORMAT : status,
                          "%s:%lld: field \"%s\"", lines->name, (long long)lines->line, at.field);
    part->end = e->n;
    r->lines.n_completions++;
    return PREFOPT_OK;
}

static int32_t read_list(pf_text_reader *r, const char *field, const json_t *list, int64_t least)
{
    if (!json_is_array(list) || (int64_t)json_array_size(list) < least)
        return pf_jsonl_unexpected(&r->lines, (pf_jsonl_place){field, -1, -1}, list,
                                   least == 1 ? "an array of one or more texts"
                                              : "an array of two or more texts, best first");
    for (size_t c = 0; c < json_array_size(list); c++)
        PF_TRY(read_text(r, (pf_jsonl_place){field, (int64_t)c, -1}, json_array_get(list, c)));
    return PREFOPT_OK;
}

static int32_t read_prompt(pf_text_reader *r, const json_t *prompt)
{
    PF_TRY(pf_grow(r->lines.context, &r->parts, 0, &r->part_capacity, 1, sizeof(pf_text_part)));
    *(pf_text_part *)r->parts = (pf_text_part){.text = ""};
    r->lines.n_completions = -1; /* so that a prompt's text is part 0 */
    if (prompt != NULL)
        PF_TRY(read_text(r, (pf_jsonl_place){"prompt", -1, -1}, prompt));
    r->lines.n_completions = 0;
    return PREFOPT_OK;
}

/* All texts of the line into r->parts, encoded. */
static int32_t read_texts(pf_text_reader *r, const json_t *line, prefopt_row *row)
{
    const json_t *prompt = json_object_get(line, "prompt");
    r->encoder.n = 0;
    PF_TRY(pf_jsonl_kind(&r->lines, line, row));
    if (row->kind == PREFOPT_ROW_PROMPT && prompt == NULL)
        return pf_fail(PREFOPT_ERR_FORMAT,
                       "%s:%lld: found no text, expected one of the fields prompt, completion, "
                       "completions, chosen with rejected, or ranking",
                       r->lines.name, (long long)r->lines.line);
    PF_TRY(read_prompt(r, prompt));
    switch (row->kind) {
    case PREFOPT_ROW_COMPLETIONS:
        if (json_object_get(line, "completion") == NULL)
            return read_list(r, "completions", json_object_get(line, "completions"), 1);
        return read_text(r, (pf_jsonl_place){"completion", -1, -1},
                         json_object_get(line, "completion"));
    case PREFOPT_ROW_RANKING:
        return read_list(r, "ranking", json_object_get(line, "ranking"), 2);
    case PREFOPT_ROW_PAIR:
        PF_TRY(read_text(r, (pf_jsonl_place){"chosen", -1, -1}, json_object_get(line, "chosen")));
        return read_text(r, (pf_jsonl_place){"rejected", -1, -1},
                         json_object_get(line, "rejected"));
    default:
        return PREFOPT_OK;
    }
}

/* The numbers of a line whose texts were read. */
static int32_t read_numbers(pf_text_reader *r, const json_t *line, prefopt_row *row)
{
    static const char *const of_tokens[] = {"logps", "sampler_logps", "ref_logps", "ref_key"};
    for (int32_t k = 0; k < 4; k++)
        if (json_object_get(line, of_tokens[k]) != NULL)
            return pf_jsonl_unexpected(&r->lines, (pf_jsonl_place){of_tokens[k], -1, -1},
                                       json_object_get(line, of_tokens[k]),
                                       "none: log-probabilities are of tokens, not of texts");
    PF_TRY(pf_jsonl_numbers(&r->lines, line, row));
    return pf_jsonl_columns(&r->lines, line, row);
}

/* ---------------------------------------------------------------- prompt and completions */

static int32_t look_at_boundary(pf_text_reader *r, bool find, pf_text_note *note)
{
    pf_text_part *parts = r->parts;
    if (find) {
        int64_t k;
        bool moved;
        PF_TRY(pf_text_find_prompt(r, &parts[1], &parts[2], &k, &moved));
        parts[0] = (pf_text_part){.begin = parts[1].begin, .end = parts[1].begin + k};
        parts[1].begin += k;
        parts[2].begin += k;
        note->flags |= PF_TEXT_IMPLICIT | (moved ? PF_TEXT_MOVED : 0);
        return PREFOPT_OK;
    }
    for (int64_t c = 1; c <= r->lines.n_completions; c++) {
        bool differs;
        PF_TRY(pf_text_mismatch(r, &parts[0], &parts[c], &differs));
        if (differs) {
            note->flags |= PF_TEXT_MISMATCH;
            break;
        }
    }
    return PREFOPT_OK;
}

static int compare_views(const void *one, const void *other)
{
    const pf_text_view *a = one, *b = other;
    if (a->n != b->n)
        return a->n < b->n ? -1 : 1;
    return a->n == 0 ? 0 : memcmp(a->tokens, b->tokens, (size_t)a->n * sizeof *a->tokens);
}

static bool two_are_equal(pf_text_view *views, int64_t n)
{
    if (n == 2)
        return compare_views(&views[0], &views[1]) == 0;
    qsort(views, (size_t)n, sizeof *views, compare_views);
    for (int64_t i = 1; i < n; i++)
        if (compare_views(&views[i - 1], &views[i]) == 0)
            return true;
    return false;
}

/* Length of a completion without an end-of-sequence token at its end. */
static int64_t bare_length(const pf_text_reader *r, const pf_text_part *part)
{
    int64_t n = part->end - part->begin, eos = r->options->eos;
    return n > 0 && eos >= 0 && r->encoder.tokens[part->end - 1] == eos ? n - 1 : n;
}

/* Whether two completions are the same, uncut. */
static int32_t same_as_written(pf_text_reader *r, bool *same)
{
    const pf_text_part *parts = r->parts;
    int64_t n = r->lines.n_completions;
    PF_TRY(pf_grow(r->lines.context, &r->views, 0, &r->view_capacity, n, sizeof(pf_text_view)));
    pf_text_view *views = r->views;
    for (int64_t c = 0; c < n; c++)
        views[c] =
            (pf_text_view){r->encoder.tokens + parts[c + 1].begin, bare_length(r, &parts[c + 1])};
    *same = two_are_equal(views, n);
    return PREFOPT_OK;
}

static int32_t over(const pf_text_reader *r, const char *what, int64_t n, const char *limit,
                    int64_t most, bool *is)
{
    if (r->options->too_long != PREFOPT_LONG_FAIL) {
        *is = true;
        return PREFOPT_OK;
    }
    return pf_fail(PREFOPT_ERR_FORMAT, "%s:%lld: %s has %lld tokens, expected at most %s, %lld",
                   r->lines.name, (long long)r->lines.line, what, (long long)n, limit,
                   (long long)most);
}

/* *too_long: the row does not go in (for LONG_FAIL an error). *prompt, *room: what the prompt has
 * once it is cut, what a completion may have. */
static int32_t limits(const pf_text_reader *r, int64_t *prompt, int64_t *room, bool *too_long)
{
    const prefopt_text_options *o = r->options;
    const pf_text_part *parts = r->parts;
    const bool cut = o->too_long == PREFOPT_LONG_CUT;
    *prompt = parts[0].end - parts[0].begin;
    *room = o->max_completion > 0 ? o->max_completion : INT64_MAX;
    *too_long = false;
    if (o->max_prompt > 0 && *prompt > o->max_prompt) {
        if (!cut)
            return over(r, "the prompt", *prompt, "max_prompt", o->max_prompt, too_long);
        *prompt = o->max_prompt;
    }
    if (o->max_tokens > 0 && *prompt >= o->max_tokens)
        return cut ? (*too_long = true, PREFOPT_OK)
                   : over(r, "the prompt alone", *prompt, "max_tokens - 1", o->max_tokens - 1,
                          too_long);
    int64_t left = o->max_tokens > 0 ? o->max_tokens - *prompt : INT64_MAX;
    for (int64_t c = 1; !cut && c <= r->lines.n_completions; c++) {
        int64_t n = bare_length(r, &parts[c]) + (o->eos >= 0);
        if (n > *room)
            return over(r, "a completion", n, "max_completion", *room, too_long);
        if (n > left)
            return over(r, "prompt and completion", *prompt + n, "max_tokens", o->max_tokens,
                        too_long);
    }
    *room = left < *room ? left : *room;
    return PREFOPT_OK;
}

/* Prompt and completions, each cut to its length, into the reader's row. */
static int32_t lay_out(pf_text_reader *r, int64_t prompt, int64_t room, pf_text_note *note,
                       prefopt_row *row)
{
    const prefopt_text_options *o = r->options;
    const pf_text_part *parts = r->parts;
    pf_jsonl_reader *lines = &r->lines;
    const int64_t n = lines->n_completions, whole = parts[0].end - parts[0].begin;
    lines->n_tokens = 0;
    PF_TRY(pf_jsonl_reserve_tokens(lines, r->encoder.n + n + 1));
    void *offsets = lines->offsets;
    PF_TRY(pf_grow(lines->context, &offsets, 1, &lines->offset_capacity, n + 1,
                   sizeof *lines->offsets));
    lines->offsets = offsets;
    int64_t skipped = o->prompt_keep == PREFOPT_KEEP_END ? whole - prompt : 0;
    if (prompt > 0)
        memcpy(lines->tokens, r->encoder.tokens + parts[0].begin + skipped,
               (size_t)prompt * sizeof *lines->tokens);
    note->prompt_cut = whole - prompt;
    int32_t *to = lines->tokens + prompt;
    for (int64_t c = 0; c < n; c++) {
        int64_t bare = bare_length(r, &parts[c + 1]), full = bare + (o->eos >= 0);
        int64_t kept = full < room ? full : room, copied = bare < kept ? bare : kept;
        if (copied > 0)
            memcpy(to, r->encoder.tokens + parts[c + 1].begin, (size_t)copied * sizeof *to);
        if (kept > copied)
            to[copied] = o->eos;
        to += kept;
        lines->offsets[c + 1] = lines->offsets[c] + kept;
        note->completions_cut += kept < full;
        note->completion_cut += full - kept;
    }
    row->prompt = lines->tokens;
    row->prompt_len = prompt;
    row->completions = lines->tokens + prompt;
    row->completion_offsets = lines->offsets;
    row->n_completions = n;
    return PREFOPT_OK;
}

static bool same_when_cut(pf_text_reader *r, const prefopt_row *row)
{
    pf_text_view *views = r->views; /* same_as_written made room */
    const int64_t *offsets = row->completion_offsets;
    for (int64_t c = 0; c < row->n_completions; c++)
        views[c] = (pf_text_view){row->completions + offsets[c], offsets[c + 1] - offsets[c]};
    return two_are_equal(views, row->n_completions);
}

/* The row of a line, and in note->flags whether it is kept. */
static int32_t make_row(pf_text_reader *r, const json_t *line, pf_text_note *note, prefopt_row *row)
{
    int64_t prompt, room;
    bool same = false, too_long;
    PF_TRY(prefopt_row_init(row, sizeof *row));
    PF_TRY(read_texts(r, line, row));
    PF_TRY(read_numbers(r, line, row));
    const bool pair = row->kind == PREFOPT_ROW_PAIR;
    const bool compared = pair || row->kind == PREFOPT_ROW_RANKING;
    if (compared)
        PF_TRY(same_as_written(r, &same));
    if (same) {
        note->flags = PF_TEXT_SAME;
        return PREFOPT_OK;
    }
    PF_TRY(look_at_boundary(r, pair && json_object_get(line, "prompt") == NULL, note));
    PF_TRY(limits(r, &prompt, &room, &too_long));
    if (too_long) {
        note->flags = PF_TEXT_TOO_LONG;
        return PREFOPT_OK;
    }
    PF_TRY(lay_out(r, prompt, room, note, row));
    if (compared && note->completions_cut > 0 && same_when_cut(r, row))
        note->flags = PF_TEXT_NO_LONGER;
    else
        note->flags |= PF_TEXT_KEPT;
    return PREFOPT_OK;
}

int32_t pf_text_line(pf_text_reader *r, const char *bytes, int64_t n)
{
    json_t *line;
    prefopt_row row;
    pf_text_note note = {.line = r->lines.line};
    int32_t status = pf_text_object(r, bytes, n, &line);
    if (line == NULL)
        return status;
    status = make_row(r, line, &note, &row);
    if (status == PREFOPT_OK)
        status = pf_grow(r->lines.context, &r->notes, r->n_notes, &r->note_capacity, r->n_notes + 1,
                         sizeof note);
    if (status == PREFOPT_OK && (note.flags & PF_TEXT_KEPT) != 0)
        status = pf_jsonl_append(&r->lines, line, &row);
    if (status == PREFOPT_OK)
        ((pf_text_note *)r->notes)[r->n_notes++] = note;
    json_decref(line);
    return pf_jsonl_in_line(&r->lines, status);
}

#endif
