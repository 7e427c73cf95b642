#include "language.h"

#include "cli.h"
#include "kept.h"

char *language_path(const char *folder, const char *name)
{
    size_t n = strlen(folder) + strlen(name) + 2;
    char *path = kept(malloc(n), free);
    snprintf(path, n, "%s/%s", folder, name);
    return path;
}

int32_t language_end(const prefopt_tokenizer *tokenizer)
{
    static const char *const names[] = {"<|endoftext|>", "</s>", "<|end|>"};
    int32_t token = -1;
    for (int i = 0; i < 3 && token < 0; i++)
        CALL(prefopt_tokenizer_token(tokenizer, names[i], (int64_t)strlen(names[i]), &token));
    return token;
}

void language_open(language_model *model, const char *folder, int reward_too)
{
    prefopt_context *context;
    CALL(prefopt_context_create(&context, NULL));
    language_open_in(model, context, folder, reward_too);
    prefopt_context_destroy(context); /* the handles hold it */
}

void language_open_in(language_model *model, prefopt_context *context, const char *folder,
                      int reward_too)
{
    *model = (language_model){.eos = -1, .context = context};
    int32_t status = prefopt_policy_load(&model->policy, model->context, folder);
    if (status == PREFOPT_ERR_FORMAT && reward_too) {
        char first[1024];
        snprintf(first, sizeof first, "%s", prefopt_last_error());
        if (prefopt_reward_load(&model->reward, model->context, folder) < 0) {
            fprintf(stderr, "%s: %s; as a reward model: %s\n", prefopt_status_name(status), first,
                    prefopt_last_error());
            exit(1);
        }
    } else
        CALL(status);
    char *path = language_path(folder, "tokenizer.json");
    CALL(prefopt_tokenizer_load(&model->tokenizer, model->context, path));
    if (model->policy != NULL) {
        prefopt_transformer_config config = {.struct_size = sizeof config};
        CALL(prefopt_policy_transformer_config(model->policy, &config));
        model->eos = config.eos;
        model->vocab = config.vocab;
        model->positions = config.max_positions;
    } else {
        prefopt_tensor embedding = {.struct_size = sizeof embedding};
        CALL(prefopt_reward_tensor(model->reward, 0, &embedding));
        model->vocab = embedding.rows;
        model->eos = language_end(model->tokenizer);
    }
    long long size = prefopt_tokenizer_size(model->tokenizer);
    if (size > model->vocab) {
        fprintf(stderr, "%s: the tokenizer has %lld tokens, the model %lld: they do not fit\n",
                folder, size, (long long)model->vocab);
        exit(1);
    }
    if (model->eos >= size) {
        fprintf(stderr, "%s: completions end with token %d, the tokenizer has %lld tokens\n",
                folder, model->eos, size);
        exit(1);
    }
}

void language_close(language_model *model)
{
    prefopt_tokenizer_destroy(model->tokenizer);
    prefopt_policy_destroy(model->policy);
    prefopt_reward_destroy(model->reward);
}

void language_copy(const char *from, const char *to)
{
    char buffer[1 << 16], *beside = kept(malloc(strlen(to) + 5), free);
    sprintf(beside, "%s.new", to);
    FILE *in = fopen(from, "rb"), *out = in == NULL ? NULL : fopen(beside, "wb");
    int good = in != NULL && out != NULL;
    for (size_t n = 1; good && n > 0;) {
        n = fread(buffer, 1, sizeof buffer, in);
        good = fwrite(buffer, 1, n, out) == n && !ferror(in);
    }
    if (out != NULL)
        good = fclose(out) == 0 && good;
    if (!good || rename(beside, to) != 0) {
        fprintf(stderr, "%s cannot be copied to %s: %s\n", from, to, strerror(errno));
        if (out != NULL)
            unlink(beside);
        exit(1);
    }
    fclose(in);
}

static void say(FILE *log, int64_t n, const char *what, int64_t line)
{
    if (n > 0 && line > 0)
        fprintf(log, "  %lld %s (first: line %lld)\n", (long long)n, what, (long long)line);
    else if (n > 0)
        fprintf(log, "  %lld %s\n", (long long)n, what);
}

/* The first row that has no prompt; -1: all have one. */
static int64_t promptless(const prefopt_dataset *data)
{
    prefopt_row row = {.struct_size = sizeof row};
    for (int64_t i = 0; i < prefopt_dataset_size(data); i++) {
        CALL(prefopt_dataset_row(data, i, &row));
        if (row.prompt_len == 0)
            return i;
    }
    return -1;
}

/* The same rows with the token that ends a text where they have no prompt; `from` goes. */
static prefopt_dataset *begun(prefopt_dataset *from, const language_model *model)
{
    prefopt_row row = {.struct_size = sizeof row};
    prefopt_dataset *out;
    CALL(prefopt_dataset_create(&out, model->context));
    for (int64_t i = 0; i < prefopt_dataset_size(from); i++) {
        CALL(prefopt_dataset_row(from, i, &row));
        if (row.prompt_len == 0) {
            row.prompt = &model->eos;
            row.prompt_len = 1;
        }
        CALL(prefopt_dataset_append(out, &row));
    }
    prefopt_dataset_destroy(from);
    return out;
}

/* begin: no row stays without a prompt. */
static prefopt_dataset *read_text(const language_model *model, const char *path, int64_t max_prompt,
                                  int64_t max_completion, int64_t max_rows, FILE *log, int begin,
                                  int pairs_alone)
{
    const char *rows = pairs_alone ? "pairs" : "rows";
    prefopt_columns columns = {.struct_size = sizeof columns};
    prefopt_dataset *data;
    prefopt_text_options options;
    prefopt_text_counts c = {.struct_size = sizeof c};
    int64_t bare = -1;
    CALL(prefopt_text_options_init(&options, sizeof options));
    options.eos = model->eos;
    options.max_prompt = max_prompt;
    options.max_completion = max_completion;
    options.max_rows = max_rows;
    options.max_tokens = model->positions;
    CALL(prefopt_text_read(&data, model->context, model->tokenizer, path, &options, &c));
    if (begin && (bare = promptless(data)) >= 0 && model->eos >= 0 && model->positions > 1) {
        prefopt_dataset_destroy(data); /* once more, with room for the token before them */
        options.max_tokens--;
        CALL(prefopt_text_read(&data, model->context, model->tokenizer, path, &options, &c));
    }
    CALL(prefopt_dataset_columns(data, &columns));
    for (int64_t i = 0; pairs_alone && i < columns.n_rows; i++)
        if (columns.kind[i] != PREFOPT_ROW_PAIR) {
            fprintf(stderr, "%s: row %lld is no pair, expected \"chosen\" and \"rejected\"\n", path,
                    (long long)i + 1);
            exit(1);
        }
    if (columns.n_rows == 0) {
        fprintf(stderr, "%s: no %s are left of %lld lines\n", path, rows, (long long)c.lines);
        exit(1);
    }
    if (bare >= 0 && model->eos < 0 && model->policy != NULL) {
        fprintf(stderr,
                "%s: row %lld has no prompt, and the model no token that ends a text, which would "
                "stand before it\n",
                path, (long long)bare + 1);
        exit(1);
    }
    if (bare >= 0 && model->eos >= 0)
        data = begun(data, model);
    fprintf(log, "%s: %lld %s from %lld lines\n", path, (long long)c.rows, rows,
            (long long)c.lines);
    say(log, c.prompts_cut, "prompts were cut", 0);
    say(log, c.prompt_tokens_cut, "tokens of prompts went", 0);
    say(log, c.completions_cut, "completions were cut", 0);
    say(log, c.completion_tokens_cut, "tokens of completions went", 0);
    say(log, c.too_long, "left out: too long", c.first_too_long);
    say(log, c.same, "left out: both completions are the same", c.first_same);
    say(log, c.no_longer_differ, "left out: the same once they are cut", c.first_no_longer_differ);
    say(log, c.implicit_prompts, "prompts found as the common beginning", 0);
    say(log, c.boundary_mismatches, "whose prompt and completion would be other tokens together",
        c.first_boundary_mismatch);
    return data;
}

prefopt_dataset *language_rows(const language_model *model, const char *path, int64_t max_prompt,
                               int64_t max_completion, int64_t max_rows, FILE *log, int begin)
{
    return read_text(model, path, max_prompt, max_completion, max_rows, log, begin, 0);
}

prefopt_dataset *language_pairs(const language_model *model, const char *path, int64_t max_prompt,
                                int64_t max_completion, int64_t max_rows, FILE *log)
{
    return read_text(model, path, max_prompt, max_completion, max_rows, log, 1, 1);
}

double *language_values(const language_model *model, const prefopt_dataset *data)
{
    prefopt_sequences all = {.struct_size = sizeof all}, part;
    CALL(prefopt_dataset_sequences(data, &all));
    double *out = doubles(all.n);
    progress_line("sequences", 0, all.n);
    for (int64_t i = 0; i < all.n; i += part.n) {
        part = all;
        part.n = all.n - i < 32 ? all.n - i : 32; /* even: a pair shares its prompt */
        part.offsets += i;
        part.prompt_len += i;
        if (model->policy != NULL)
            CALL(prefopt_policy_logprobs(model->policy, &part, out + i, NULL));
        else
            CALL(prefopt_reward_scores(model->reward, &part, out + i));
        progress_line("sequences", i + part.n, all.n);
    }
    return out;
}

double language_seconds(void)
{
    struct timespec now;
    timespec_get(&now, TIME_UTC);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}
