/* How well a checkpoint tells the better text of a pair: a language model by its log-probabilities,
 * a reward model by its scores.
 *
 *     score_pairs DIR FILE.jsonl[.gz] [options]
 *
 * The sum of log-probabilities favours short completions, the mean by token does not; what always
 * preferring the longer one would get stands beside them. */
#include "support/arguments.h"
#include "support/cli.h"
#include "support/intervals.h"
#include "support/language.h"

static const char usage[] =
    "score_pairs DIR FILE.jsonl[.gz] [options]\n"
    "  DIR holds config.json, model.safetensors and tokenizer.json, of a language model or a "
    "reward\n"
    "  model; each line of FILE has \"chosen\" and \"rejected\", and \"prompt\" or none\n"
    "  --max-prompt N      tokens; of a longer prompt the end is kept (0: no limit)\n"
    "  --max-completion N  tokens; of a longer completion the beginning (0: no limit)\n"
    "  --limit N           that many pairs from the start of the file (0: all)\n"
    "  --each              a line for each pair too";

/* With Wilson's 95 % interval for as many pairs as the weights are worth. */
static void print_accuracy(const char *name, const prefopt_columns *c, const double *value)
{
    interval share = interval_accuracy(c, value);
    printf("%-32s %.4f  [%.4f, %.4f]\n", name, share.value, share.low, share.high);
}

static void print_means(const char *name, int64_t n, const double *value)
{
    double chosen = 0, rejected = 0;
    for (int64_t i = 0; i < n; i++) {
        chosen += value[2 * i] / (double)n;
        rejected += value[2 * i + 1] / (double)n;
    }
    printf("%-32s chosen %.4f  rejected %.4f\n", name, chosen, rejected);
}

int main(int argc, char **argv)
{
    double max_prompt = 0, max_completion = 0, limit = 0, each = 0;
    const char *words[2];
    const argument options[] = {{"--max-prompt", &max_prompt, 0, 1e9, .whole = 1},
                                {"--max-completion", &max_completion, 0, 1e9, .whole = 1},
                                {"--limit", &limit, 0, 1e15, .whole = 1},
                                {"--each", &each, 0, 0, .whole = 0},
                                {0}};
    arguments_read(argc, argv, usage, options, words, 2, 2);
    language_model model;
    language_open(&model, words[0], 1);
    prefopt_dataset *pairs = language_pairs(&model, words[1], (int64_t)max_prompt,
                                            (int64_t)max_completion, (int64_t)limit, stdout);
    prefopt_sequences s = {.struct_size = sizeof s};
    prefopt_columns columns = {.struct_size = sizeof columns};
    CALL(prefopt_dataset_sequences(pairs, &s));
    CALL(prefopt_dataset_columns(pairs, &columns));

    double start = language_seconds();
    double *value = language_values(&model, pairs), seconds = language_seconds() - start;
    double *by_token = doubles(s.n), *length = doubles(s.n);
    for (int64_t i = 0; i < s.n; i++) {
        length[i] = (double)(s.offsets[i + 1] - s.offsets[i] - s.prompt_len[i]);
        by_token[i] = length[i] > 0 ? value[i] / length[i] : 0;
    }
    if (each != 0) {
        printf("pair\tchosen\trejected\ttokens chosen\ttokens rejected\n");
        for (int64_t i = 0; i < s.n; i += 2)
            printf("%lld\t%.6f\t%.6f\t%.0f\t%.0f\n", (long long)i / 2 + 1, value[i], value[i + 1],
                   length[i], length[i + 1]);
    }
    int64_t n_tokens = s.offsets[s.n] - s.offsets[0];
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "[%lld tokens, %.0f a second]\n", (long long)n_tokens,
                (double)n_tokens / seconds);
    print_means("tokens of a completion", columns.n_rows, length);
    if (model.policy != NULL) {
        print_means("log-probability", columns.n_rows, value);
        print_means("log-probability by token", columns.n_rows, by_token);
        printf("\naccuracy                         share   95 %% interval\n");
        print_accuracy("by the sum", &columns, value);
        print_accuracy("by the mean of the tokens", &columns, by_token);
    } else {
        print_means("score", columns.n_rows, value);
        printf("\naccuracy                         share   95 %% interval\n");
        print_accuracy("by the reward model", &columns, value);
    }
    print_accuracy("the longer completion", &columns, length);
    free(value);
    free(by_token);
    free(length);
    prefopt_dataset_destroy(pairs);
    language_close(&model);
    return 0;
}
