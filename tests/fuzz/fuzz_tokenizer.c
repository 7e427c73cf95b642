/* tokenizer.json: a tokenizer that loads can encode, and what it has encoded it can decode. */
#include "data/pf_tokenizer.h"
#include "fuzz.h"

static void use(const prefopt_tokenizer *tokenizer, const char *text, int64_t n)
{
    enum { ROOM = 4096 };
    static int32_t tokens[ROOM];
    static char back[ROOM * 16];
    int64_t n_tokens = 0, n_back = 0;
    int32_t status = prefopt_tokenizer_encode(tokenizer, text, n, tokens, ROOM, &n_tokens);
    if (status != PREFOPT_OK || n_tokens > ROOM)
        return;
    for (int64_t i = 0; i < n_tokens; i++)
        MUST(tokens[i] >= 0 && tokens[i] < prefopt_tokenizer_size(tokenizer));
    (void)prefopt_tokenizer_decode(tokenizer, tokens, n_tokens, back, sizeof back, &n_back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char text[] = "It's 3 o'clock,  don't\n\tca\xcc\xa7 va? <|end|> \xe2\x82\xac "
                               "aaaaaaaaaaaaaaaabababababab";
    prefopt_tokenizer *tokenizer = NULL;
    int32_t status = pf_tokenizer_parse(&tokenizer, fuzz_context(), "tokenizer.json",
                                        (const char *)data, (int64_t)size);
    if (status != PREFOPT_OK) {
        check_failure(status);
        return 0;
    }
    use(tokenizer, text, sizeof text - 1);
    /* The file's own text has its tokens in it. */
    use(tokenizer, (const char *)data, size < 2048 ? (int64_t)size : 2048);
    prefopt_tokenizer_destroy(tokenizer);
    return 0;
}
