/* Text from a language model, as it comes.
 *
 *     generate DIR "text" [options]
 *
 * DIR is a checkpoint in Hugging Face's layout with its tokenizer.json. The sampler tells of each
 * token as it is drawn; a character whose bytes are spread over tokens is written when it is whole.
 */
#include "support/arguments.h"
#include "support/cli.h"
#include "support/language.h"
#include "support/utf8_stream.h"

static const char usage[] =
    "generate DIR TEXT [options]\n"
    "  DIR holds config.json, model.safetensors and tokenizer.json\n"
    "  --max-tokens N   of a completion (128; 0: as many as the model has positions)\n"
    "  --temperature T  (1)\n"
    "  --top-k K        among the K likeliest tokens alone (0: all)\n"
    "  --top-p P        among the likeliest up to mass P (1: all)\n"
    "  --min-p P        among those at least P times as likely as the likeliest (0: all)\n"
    "  --seed S         another seed, another text (0)\n"
    "  --greedy         the likeliest token each time\n"
    "  -n N             so many completions, printed when all are done (1)";

/* What the sampler's callback needs. */
typedef struct {
    const prefopt_tokenizer *tokenizer;
    const char *prompt;
    utf8_stream stream;
    int64_t drawn, total;
    int streams;
} printer;

/* A token's text; none where it only ends the text. */
static void print_token(printer *p, int32_t token)
{
    int64_t n;
    if (prefopt_tokenizer_is_special(p->tokenizer, token))
        return;
    const char *text = prefopt_tokenizer_text(p->tokenizer, token, &n);
    if (text == NULL) /* models may have more tokens than their tokenizer */
        utf8_write(&p->stream, stdout, "\xef\xbf\xbd", 3);
    else
        utf8_write(&p->stream, stdout, text, n);
}

static int32_t on_token(void *payload, int64_t row, int64_t completion, int32_t token)
{
    printer *p = payload;
    (void)row, (void)completion;
    if (!p->streams) {
        progress_line("tokens", ++p->drawn, p->total);
        return PREFOPT_OK;
    }
    if (p->drawn++ == 0) /* all is well: before, an error is all there is to say */
        fputs(p->prompt, stdout);
    print_token(p, token);
    return fflush(stdout) == 0 ? PREFOPT_OK : PREFOPT_STOPPED;
}

/* The prompt's row: its tokens, or the end of a text before when there are none. */
static prefopt_dataset *prompt_of(const language_model *model, const char *text)
{
    int64_t n_bytes = (int64_t)strlen(text), n;
    int32_t *tokens = malloc(((size_t)n_bytes + 1) * sizeof *tokens); /* a byte each at the most */
    if (tokens == NULL) {
        fprintf(stderr, "no memory for %lld tokens\n", (long long)n_bytes);
        exit(1);
    }
    CALL(prefopt_tokenizer_encode(model->tokenizer, text, n_bytes, tokens, n_bytes + 1, &n));
    if (n == 0 && model->eos >= 0)
        tokens[n++] = model->eos;
    prefopt_row row;
    prefopt_dataset *prompts;
    CALL(prefopt_row_init(&row, sizeof row));
    row.prompt = tokens;
    row.prompt_len = n;
    CALL(prefopt_dataset_create(&prompts, model->context));
    CALL(prefopt_dataset_append(prompts, &row));
    free(tokens);
    return prompts;
}

int main(int argc, char **argv)
{
    double max_tokens = 128, temperature = 1, top_k = 0, top_p = 1, min_p = 0, seed = 0, greedy = 0,
           n = 1;
    const char *words[2];
    const argument options[] = {{"--max-tokens", &max_tokens, 0, 1e9, .whole = 1},
                                {"--temperature", &temperature, 0, 1e6, .whole = 0},
                                {"--top-k", &top_k, 0, 2e9, .whole = 1},
                                {"--top-p", &top_p, 1e-9, 1, .whole = 0},
                                {"--min-p", &min_p, 0, 1, .whole = 0},
                                {"--seed", &seed, 0, 9007199254740992.0, .whole = 1},
                                {"--greedy", &greedy, 0, 0, .whole = 0},
                                {"-n", &n, 1, 1e6, .whole = 1},
                                {0}};
    arguments_read(argc, argv, usage, options, words, 2, 2);
    language_model model;
    language_open(&model, words[0], 0);
    prefopt_dataset *prompts = prompt_of(&model, words[1]), *samples = NULL;

    prefopt_space space = {.struct_size = sizeof space};
    CALL(prefopt_policy_space(model.policy, &space));
    printer p = {.tokenizer = model.tokenizer, .prompt = words[1], .streams = n == 1};
    p.total = (int64_t)n * (max_tokens > 0 ? (int64_t)max_tokens : space.horizon);
    prefopt_sampler_options sampler;
    CALL(prefopt_sampler_options_init(&sampler, sizeof sampler));
    sampler.n = (int64_t)n;
    sampler.temperature = greedy != 0 ? 0 : temperature;
    sampler.top_k = (int64_t)top_k;
    sampler.top_p = top_p;
    sampler.min_p = min_p;
    sampler.seed = (uint64_t)seed;
    sampler.max_tokens = (int64_t)max_tokens;
    sampler.token = on_token;
    sampler.token_payload = &p;
    double start = language_seconds();
    progress_line("tokens", 0, p.total);
    CALL(prefopt_sample(&samples, model.policy, prompts, &sampler));
    double seconds = language_seconds() - start;
    utf8_end(&p.stream, stdout);
    if (!p.streams && p.drawn < p.total && isatty(STDERR_FILENO))
        fprintf(stderr, "\n"); /* after the progress of completions that ended early */
    for (int64_t i = 0; i < sampler.n && !p.streams; i++) {
        prefopt_row row = {.struct_size = sizeof row};
        CALL(prefopt_dataset_row(samples, 0, &row));
        printf("--- %lld, log-probability %.3f\n%s", (long long)i + 1, row.logp[i], words[1]);
        for (int64_t t = row.completion_offsets[i]; t < row.completion_offsets[i + 1]; t++)
            print_token(&p, row.completions[t]);
        utf8_end(&p.stream, stdout);
        printf("\n");
    }
    if (p.streams)
        printf("\n");
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "[%lld tokens, %.0f a second]\n", (long long)p.drawn,
                (double)p.drawn / seconds);
    prefopt_dataset_destroy(samples);
    prefopt_dataset_destroy(prompts);
    language_close(&model);
    return 0;
}
