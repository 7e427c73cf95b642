/* A file of texts into a dataset: pieces of the file are cut into chunks of whole lines, these are
 * read on the context's threads, each into a dataset of its own, and what they made is put together
 * in the order of the lines. Where chunks end changes nothing. */
#include "data/pf_input.h"
#include "data/pf_text.h"

static const prefopt_text_options defaults = {.struct_size = sizeof defaults, .eos = -1};

int32_t prefopt_text_options_init(prefopt_text_options *options, uint32_t struct_size)
{
    return pf_struct_init(options, struct_size, &defaults, sizeof defaults, sizeof defaults,
                          "prefopt_text_options");
}

static int32_t check_options(const prefopt_text_options *o, const prefopt_tokenizer *tokenizer)
{
    const struct {
        const char *name;
        int64_t value;
    } limits[] = {{"max_prompt", o->max_prompt},
                  {"max_completion", o->max_completion},
                  {"max_tokens", o->max_tokens},
                  {"max_rows", o->max_rows}};
    for (int32_t i = 0; i < 4; i++)
        if (limits[i].value < 0)
            return pf_fail(PREFOPT_ERR_ARGUMENT, "%s is %lld, expected 0 (no limit) or more",
                           limits[i].name, (long long)limits[i].value);
    if (o->eos < -1 || o->eos >= prefopt_tokenizer_size(tokenizer))
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "eos is %ld, expected -1 (none) or a token of the tokenizer, 0 to %lld",
                       (long)o->eos, (long long)prefopt_tokenizer_size(tokenizer) - 1);
    if (o->too_long < PREFOPT_LONG_CUT || o->too_long > PREFOPT_LONG_FAIL)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "too_long is %ld, expected a prefopt_text_long, 0 to 2", (long)o->too_long);
    if (o->prompt_keep != PREFOPT_KEEP_END && o->prompt_keep != PREFOPT_KEEP_START)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "prompt_keep is %ld, expected a prefopt_text_keep, 0 or 1",
                       (long)o->prompt_keep);
    if (o->too_long != PREFOPT_LONG_CUT && o->max_prompt == 0 && o->max_completion == 0 &&
        o->max_tokens == 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "too_long is %ld but there is no limit: max_prompt, max_completion and "
                       "max_tokens are 0",
                       (long)o->too_long);
    if (o->prompt_keep != PREFOPT_KEEP_END &&
        (o->max_prompt == 0 || o->too_long != PREFOPT_LONG_CUT))
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "prompt_keep is %ld, which is for max_prompt with PREFOPT_LONG_CUT alone",
                       (long)o->prompt_keep);
    return PREFOPT_OK;
}

#if PF_HAVE_JSON

enum { N_CHUNKS = 32, ERROR_SIZE = 1024 };

typedef struct {
    pf_text_reader reader;
    const char *bytes;
    int64_t n;
    int32_t status;
    char error[ERROR_SIZE]; /* of the thread that failed */
} chunk;

/* All of one call. */
typedef struct {
    prefopt_context *context;
    const prefopt_tokenizer *tokenizer;
    const char *name;
    const prefopt_text_options *options;
    prefopt_dataset *data;
    prefopt_text_counts counts;
    double done;        /* part of the file up to the piece at hand; 0: not known */
    int64_t line;       /* where the next chunk starts */
    int64_t chunk_size; /* bytes, at least; the last line is read to its end */
    bool enough;        /* max_rows are there */
    int32_t n_readers;  /* chunks with a reader */
    chunk *chunks;      /* N_CHUNKS */
} text_job;

static void read_chunk(void *payload, int64_t i)
{
    chunk *c = &((text_job *)payload)->chunks[i];
    pf_jsonl_reader *lines = &c->reader.lines;
    c->status = PREFOPT_OK;
    for (int64_t at = 0; at < c->n && c->status == PREFOPT_OK; lines->line++) {
        int64_t length;
        const char *line = pf_line_take(c->bytes, c->n, lines->line, &at, &length);
        c->status = pf_text_line(&c->reader, line, length);
    }
    if (c->status != PREFOPT_OK) {
        strncpy(c->error, prefopt_last_error(), ERROR_SIZE - 1);
        c->error[ERROR_SIZE - 1] = '\0';
    }
}

/* Gives chunk i the lines from bytes[*at] on. */
static int32_t begin_chunk(text_job *job, int32_t i, const char *bytes, int64_t n, int64_t *at)
{
    chunk *c = &job->chunks[i];
    pf_text_reader *r = &c->reader;
    if (i == job->n_readers) {
        PF_TRY(pf_text_begin(r, job->context, job->tokenizer, job->name, job->options));
        job->n_readers++;
    } else {
        prefopt_dataset *empty;
        PF_TRY(prefopt_dataset_create(&empty, job->context));
        prefopt_dataset_destroy(r->lines.data);
        r->lines.data = empty;
    }
    r->n_notes = 0;
    r->lines.line = job->line;
    c->bytes = bytes + *at;
    int64_t end = *at;
    while (end < n && end - *at < job->chunk_size) {
        const char *newline = memchr(bytes + end, '\n', (size_t)(n - end));
        end = newline == NULL ? n : newline + 1 - bytes;
        job->line++;
    }
    c->n = end - *at;
    *at = end;
    return PREFOPT_OK;
}

static void first(int64_t *line, int64_t *count, const pf_text_note *note, int64_t flag)
{
    if ((note->flags & flag) == 0)
        return;
    ++*count;
    if (*line == 0)
        *line = note->line;
}

static void count(prefopt_text_counts *c, const pf_text_note *note)
{
    c->lines++;
    c->rows += (note->flags & PF_TEXT_KEPT) != 0;
    first(&c->first_too_long, &c->too_long, note, PF_TEXT_TOO_LONG);
    first(&c->first_same, &c->same, note, PF_TEXT_SAME);
    first(&c->first_no_longer_differ, &c->no_longer_differ, note, PF_TEXT_NO_LONGER);
    if ((note->flags & PF_TEXT_KEPT) == 0)
        return;
    first(&c->first_moved, &c->moved, note, PF_TEXT_MOVED);
    first(&c->first_boundary_mismatch, &c->boundary_mismatches, note, PF_TEXT_MISMATCH);
    c->implicit_prompts += (note->flags & PF_TEXT_IMPLICIT) != 0;
    c->prompts_cut += note->prompt_cut > 0;
    c->completions_cut += note->completions_cut;
    c->prompt_tokens_cut += note->prompt_cut;
    c->completion_tokens_cut += note->completion_cut;
}

/* The chunk's rows and counts into the whole; then its failure, if no row was needed from there. */
static int32_t take_chunk(text_job *job, const chunk *c)
{
    const pf_text_note *notes = c->reader.notes;
    int64_t row = 0;
    for (int64_t i = 0; i < c->reader.n_notes; i++) {
        if ((notes[i].flags & PF_TEXT_KEPT) != 0) {
            prefopt_row view = {.struct_size = sizeof view};
            PF_TRY(prefopt_dataset_row(c->reader.lines.data, row++, &view));
            PF_TRY(pf_dataset_append(job->data, &view, view.extra,
                                     view.extra != NULL ? (int64_t)strlen(view.extra) : 0));
        }
        count(&job->counts, &notes[i]);
        if (job->options->max_rows > 0 && job->counts.rows == job->options->max_rows) {
            job->enough = true;
            return PREFOPT_OK;
        }
    }
    return c->status == PREFOPT_OK ? PREFOPT_OK : pf_fail(c->status, "%s", c->error);
}

static pf_dataset_sizes sizes_of(const prefopt_dataset *d)
{
    if (d->offsets == NULL)
        return (pf_dataset_sizes){0};
    return (pf_dataset_sizes){.rows = d->n_rows,
                              .sequences = d->n_sequences,
                              .tokens = d->offsets[d->n_sequences],
                              .completions = d->completions_at[d->n_rows],
                              .text = d->n_text};
}

/* What `more` is to be when `have` and it are the part `done` of all; not beyond eight times both,
 * since the file may go on otherwise. */
static int64_t foresee(int64_t have, int64_t more, double done)
{
    double all = 1.05 * (double)(have + more) / done, most = 8 * (double)(have + more);
    int64_t expected = (int64_t)(all < most ? all : most) - have;
    return expected > more ? expected : more;
}

/* Room for the rows of `used` chunks, and where the size of the file tells for the rest's too: the
 * arrays would else be copied again and again. */
static int32_t reserve(text_job *job, int32_t used, double done)
{
    pf_dataset_replaced replaced;
    pf_dataset_sizes have = sizes_of(job->data), more = {0};
    for (int32_t i = 0; i < used; i++) {
        pf_dataset_sizes its = sizes_of(job->chunks[i].reader.lines.data);
        more.rows += its.rows;
        more.sequences += its.sequences;
        more.tokens += its.tokens;
        more.completions += its.completions;
        more.text += its.text;
    }
    const prefopt_dataset *d = job->data;
    bool grows = d->row_capacity < have.rows + more.rows ||
                 d->sequence_capacity < have.sequences + more.sequences ||
                 d->token_capacity < have.tokens + more.tokens ||
                 d->completion_capacity < have.completions + more.completions ||
                 d->text_capacity < have.text + more.text;
    if (grows && done > 0 && job->options->max_rows == 0)
        more = (pf_dataset_sizes){.rows = foresee(have.rows, more.rows, done),
                                  .sequences = foresee(have.sequences, more.sequences, done),
                                  .tokens = foresee(have.tokens, more.tokens, done),
                                  .completions = foresee(have.completions, more.completions, done),
                                  .text = foresee(have.text, more.text, done)};
    PF_TRY(pf_dataset_reserve(job->data, more, &replaced));
    pf_dataset_free_replaced(job->data, &replaced);
    return PREFOPT_OK;
}

/* Reads n bytes of whole lines; done: the part of the file up to their end, 0: not known. */
static int32_t read_piece(text_job *job, const char *bytes, int64_t n, double done)
{
    for (int64_t at = 0; at < n && !job->enough;) {
        int32_t used = 0;
        while (at < n && used < N_CHUNKS)
            PF_TRY(begin_chunk(job, used++, bytes, n, &at));
        pf_parallel_for(job->context, used, read_chunk, job);
        PF_TRY(reserve(job, used, job->done + (done - job->done) * (double)at / (double)n));
        for (int32_t i = 0; i < used && !job->enough; i++)
            PF_TRY(take_chunk(job, &job->chunks[i]));
    }
    job->done = done;
    return PREFOPT_OK;
}

static int32_t read_input(text_job *job, pf_input *input)
{
    pf_lines lines = {.context = job->context, .input = input};
    const char *bytes;
    int64_t n;
    int32_t status;
    do {
        status = pf_lines_next(&lines, job->chunk_size * N_CHUNKS, &bytes, &n);
        if (status == PREFOPT_OK)
            status = read_piece(job, bytes, n, pf_input_progress(input));
    } while (status == PREFOPT_OK && n > 0 && !job->enough);
    pf_lines_end(&lines);
    return status;
}

static void tell(const text_job *job, int64_t n, int64_t line, const char *what)
{
    if (n > 0)
        pf_log(job->context, PREFOPT_LOG_WARNING, "%s: %lld rows %s; the first in line %lld",
               job->name, (long long)n, what, (long long)line);
}

static void warn(const text_job *job)
{
    const prefopt_text_counts *c = &job->counts;
    tell(job, c->boundary_mismatches, c->first_boundary_mismatch,
         "have other tokens when prompt and completion are tokenised together");
    tell(job, c->too_long, c->first_too_long, "were left out as too long");
    tell(job, c->same, c->first_same, "were left out as two of their completions are the same");
    tell(job, c->no_longer_differ, c->first_no_longer_differ,
         "were left out as two of their completions no longer differ once they are cut");
}

/* Reads `input`, or the n bytes where that is NULL. */
static int32_t read_all(prefopt_dataset **out, text_job *job, pf_input *input, const char *bytes,
                        int64_t n, prefopt_text_counts *counts)
{
    /* A piece of 4 MiB keeps many threads busy; with rows and tokens it takes several times that.
     */
    int64_t size = pf_context_byte_budget(job->context) / 64 / N_CHUNKS;
    job->chunk_size = size < 2048 ? 2048 : size > 1 << 17 ? 1 << 17 : size;
    job->line = 1;
    job->counts.struct_size = sizeof job->counts;
    job->chunks = pf_alloc(job->context, N_CHUNKS, sizeof *job->chunks);
    int32_t status =
        job->chunks == NULL ? PREFOPT_ERR_MEMORY : prefopt_dataset_create(&job->data, job->context);
    if (status != PREFOPT_OK)
        pf_input_close(input);
    else
        status = input != NULL ? read_input(job, input) : read_piece(job, bytes, n, 0);
    for (int32_t i = 0; i < job->n_readers; i++)
        pf_text_end(&job->chunks[i].reader);
    pf_free(job->context, job->chunks);
    if (status != PREFOPT_OK) {
        prefopt_dataset_destroy(job->data);
        return status;
    }
    warn(job);
    *out = job->data;
    if (counts != NULL)
        pf_struct_write(counts, &job->counts, sizeof job->counts);
    return PREFOPT_OK;
}

#endif

/* What both ways in check; *own are the options. */
static int32_t check(const prefopt_tokenizer *tokenizer, const prefopt_text_options *options,
                     const prefopt_text_counts *counts, prefopt_text_options *own)
{
    *own = defaults;
    if (options != NULL)
        PF_TRY(pf_struct_read(own, sizeof *own, sizeof *own, options, "prefopt_text_options"));
    if (counts != NULL)
        PF_TRY(pf_struct_check_out(counts, sizeof *counts, "prefopt_text_counts"));
    return check_options(own, tokenizer);
}

int32_t pf_text_parse(prefopt_dataset **out, prefopt_context *context,
                      const prefopt_tokenizer *tokenizer, const char *name, const char *bytes,
                      int64_t n, const prefopt_text_options *options, prefopt_text_counts *counts)
{
    prefopt_text_options own;
    PF_TRY(check(tokenizer, options, counts, &own));
#if PF_HAVE_JSON
    text_job job = {.context = context, .tokenizer = tokenizer, .name = name, .options = &own};
    return read_all(out, &job, NULL, bytes, n, counts);
#else
    (void)out, (void)context, (void)bytes, (void)n;
    return pf_fail(PREFOPT_ERR_UNSUPPORTED, "%s: this library was built without JSON", name);
#endif
}

int32_t prefopt_text_read(prefopt_dataset **out, prefopt_context *context,
                          const prefopt_tokenizer *tokenizer, const char *path,
                          const prefopt_text_options *options, prefopt_text_counts *counts)
{
    PF_REQUIRE(out);
    PF_REQUIRE(context);
    PF_REQUIRE(tokenizer);
    PF_REQUIRE(path);
    prefopt_text_options own;
    PF_TRY(check(tokenizer, options, counts, &own));
#if PF_HAVE_JSON
    pf_input *input;
    text_job job = {.context = context, .tokenizer = tokenizer, .name = path, .options = &own};
    PF_TRY(pf_input_open(&input, context, path));
    return read_all(out, &job, input, NULL, 0, counts);
#else
    return pf_fail(PREFOPT_ERR_UNSUPPORTED, "%s: this library was built without JSON", path);
#endif
}
