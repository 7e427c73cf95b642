/* A small random language model, for who has no checkpoint yet.
 *
 *     new_model TOKENIZER.JSON DIR [layers width heads seed]
 *
 * DIR then holds what generate, score_pairs and dpo_text take. Its text is noise: nothing has
 * trained it. */
#include "support/arguments.h"
#include "support/cli.h"
#include "support/language.h"

static const char usage[] =
    "new_model TOKENIZER.JSON DIR [layers width heads seed]\n"
    "  a random GPT-NeoX model of 2 layers, width 128 and 4 heads, seed 0, or as said, with the\n"
    "  tokenizer beside it";

int main(int argc, char **argv)
{
    static const char *const names[] = {"layers", "width", "heads", "seed"};
    static const double most[] = {1000, 1e6, 1e6, 9007199254740992.0};
    double number[] = {2, 128, 4, 0};
    const char *words[6];
    const argument no_options[] = {{0}};
    arguments_read(argc, argv, usage, no_options, words, 2, 6);
    for (int i = 0; i < 4 && words[2 + i] != NULL; i++) {
        char *end;
        number[i] = strtod(words[2 + i], &end);
        if (words[2 + i][0] == '\0' || *end != '\0' || !(number[i] >= (i < 3)) ||
            number[i] > most[i] || number[i] != (double)(int64_t)number[i]) {
            fprintf(stderr, "%s is \"%s\", expected a whole number from %d to %.15g\nusage: %s\n",
                    names[i], words[2 + i], i < 3, most[i], usage);
            return 2;
        }
    }
    prefopt_context *context;
    prefopt_tokenizer *tokenizer;
    prefopt_transformer_config config;
    prefopt_policy *policy;
    prefopt_parameters parameters = {.struct_size = sizeof parameters};
    CALL(prefopt_context_create(&context, NULL));
    CALL(prefopt_tokenizer_load(&tokenizer, context, words[0]));
    CALL(prefopt_transformer_config_init(&config, sizeof config));
    config.vocab = prefopt_tokenizer_size(tokenizer);
    config.eos = language_end(tokenizer);
    config.n_layers = (int64_t)number[0];
    config.width = (int64_t)number[1];
    config.n_heads = (int64_t)number[2];
    config.ff_width = 4 * config.width;
    CALL(prefopt_policy_create_transformer(&policy, context, &config, (uint64_t)number[3]));
    CALL(prefopt_policy_parameters(policy, &parameters));
    CALL(prefopt_policy_save(policy, words[1]));
    char *path = language_path(words[1], "tokenizer.json");
    language_copy(words[0], path);
    printf("%s: %lld layers, width %lld, %lld heads, %lld tokens: %.2f million parameters\n",
           words[1], (long long)config.n_layers, (long long)config.width, (long long)config.n_heads,
           (long long)config.vocab, 1e-6 * (double)parameters.n);
    printf("The weights are random: its text is noise until it is trained, by\n"
           "prefopt_trainer_create_mle on COMPLETIONS rows, say.\n");
    prefopt_policy_destroy(policy);
    prefopt_tokenizer_destroy(tokenizer);
    prefopt_context_destroy(context);
    return 0;
}
