/* config.json: what is read is a configuration that the library takes, and comes back when it is
 * written and read again. */
#include "fuzz.h"
#include "model/pf_checkpoint.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    prefopt_transformer_config config, checked, again;
    int32_t head, head_again;
    char *text;
    int64_t n;
    int32_t status =
        pf_config_parse("config.json", (const char *)data, (int64_t)size, &config, &head);
    if (status != PREFOPT_OK) {
        check_failure(status);
        return 0;
    }
    MUST(pf_transformer_config_read(&checked, &config) == PREFOPT_OK);
    MUST(pf_config_text(fuzz_context(), &config, head, PREFOPT_F32, &text, &n) == PREFOPT_OK);
    MUST(pf_config_parse("config.json", text, n, &again, &head_again) == PREFOPT_OK);
    MUST(memcmp(&config, &again, sizeof config) == 0 && head == head_again);
    pf_free(fuzz_context(), text);
    return 0;
}
