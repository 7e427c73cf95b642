/* config.json: both ways, every spelling, and every way in which it can be wrong. */
#define _GNU_SOURCE
#include "checkpoint_test.h"

#define SIZES                                                                                      \
    "\"model_type\":\"gpt_neox\",\"vocab_size\":11,\"num_hidden_layers\":2,\"hidden_size\":16,"    \
    "\"num_attention_heads\":2,\"intermediate_size\":12"
#define WITH(fields) "{" SIZES "," fields "}"

static prefopt_transformer_config c;
static int32_t head;

static int32_t parse(const char *text)
{
    return pf_config_parse("dir/config.json", text, (int64_t)strlen(text), &c, &head);
}

#define BAD(expected, text) FAILS(PREFOPT_ERR_FORMAT, "dir/config.json: " expected, parse(text))

START_TEST(test_defaults)
{
    OK(parse("{" SIZES "}"));
    ck_assert_int_eq(head, PF_HEAD_LOGITS);
    ck_assert_int_eq(c.vocab, 11);
    ck_assert_int_eq(c.n_layers, 2);
    ck_assert_int_eq(c.width, 16);
    ck_assert_int_eq(c.n_heads, 2);
    ck_assert_int_eq(c.ff_width, 12);
    ck_assert_int_eq(c.max_positions, 2048);
    ck_assert_int_eq(c.activation, PREFOPT_GELU);
    ck_assert_int_eq(c.parallel_residual, 1);
    ck_assert_int_eq(c.tied, 0);
    ck_assert_int_eq(c.eos, 2);
    ck_assert(c.rotary_fraction == 0.25 && c.rotary_base == 10000);
    ck_assert(c.norm_epsilon == 1e-5 && c.init_scale == 0.02);
    OK(pf_transformer_config_read(&c, &c));
}
END_TEST

START_TEST(test_spellings)
{
    OK(parse(WITH("\"rotary_pct\":0.5,\"rotary_emb_base\":500")));
    ck_assert(c.rotary_fraction == 0.5 && c.rotary_base == 500);
    OK(parse(WITH("\"partial_rotary_factor\":0.5,\"rope_theta\":500.5,\"rope_scaling\":null")));
    ck_assert(c.rotary_fraction == 0.5 && c.rotary_base == 500.5);
    OK(parse(WITH("\"rope_parameters\":{\"rope_theta\":500,\"partial_rotary_factor\":1.0,"
                  "\"rope_type\":\"default\"}")));
    ck_assert(c.rotary_fraction == 1 && c.rotary_base == 500);
    OK(parse(WITH("\"rotary_pct\":0.5,\"rope_theta\":500,\"rope_parameters\":{\"rope_theta\":500.0,"
                  "\"partial_rotary_factor\":0.5}")));
    BAD("partial_rotary_factor is 0.5, but rotary_pct is 0.25",
        WITH("\"rotary_pct\":0.25,\"partial_rotary_factor\":0.5"));
    BAD("rope_theta is 5, but rotary_emb_base is 6",
        WITH("\"rotary_emb_base\":6,\"rope_theta\":5"));
    BAD("rope_parameters.rope_theta is 7, but rope_theta is 5",
        WITH("\"rope_theta\":5,\"rope_parameters\":{\"rope_theta\":7}"));
    BAD("rope_parameters.partial_rotary_factor is 1, but rotary_pct is 0.25",
        WITH("\"rotary_pct\":0.25,\"rope_parameters\":{\"partial_rotary_factor\":1}"));
    BAD("rope_scaling is {\"factor\":2.0}", WITH("\"rope_scaling\":{\"factor\":2.0}"));
    BAD("rope_parameters.rope_type is \"linear\"",
        WITH("\"rope_parameters\":{\"rope_type\":\"linear\"}"));
    BAD("rope_parameters is 3", WITH("\"rope_parameters\":3"));
    const char *exact[] = {"gelu", "gelu_python"};
    const char *tanh_form[] = {"gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_accurate"};
    char text[400];
    for (size_t i = 0; i < 6; i++) {
        snprintf(text, sizeof text, WITH("\"hidden_act\":\"%s\""),
                 i < 2 ? exact[i] : tanh_form[i - 2]);
        OK(parse(text));
        ck_assert_int_eq(c.activation, i < 2 ? PREFOPT_GELU : PREFOPT_GELU_TANH);
    }
    BAD("hidden_act is \"relu\"", WITH("\"hidden_act\":\"relu\""));
    BAD("hidden_act is \"quick_gelu\"", WITH("\"hidden_act\":\"quick_gelu\""));
    BAD("hidden_act is null", WITH("\"hidden_act\":null"));
}
END_TEST

START_TEST(test_head)
{
    OK(parse(WITH("\"architectures\":[\"GPTNeoXForCausalLM\"],\"num_labels\":2")));
    ck_assert_int_eq(head, PF_HEAD_LOGITS);
    OK(parse(WITH("\"architectures\":null")));
    ck_assert_int_eq(head, PF_HEAD_LOGITS);
#define SCORE "\"architectures\":[\"GPTNeoXForSequenceClassification\"]"
    OK(parse(WITH(SCORE)));
    ck_assert_int_eq(head, PF_HEAD_SCORE);
    OK(parse(WITH(SCORE ",\"num_labels\":1,\"id2label\":{\"0\":\"LABEL_0\"}")));
    BAD("num_labels is 2", WITH(SCORE ",\"num_labels\":2"));
    BAD("num_labels is 1.0", WITH(SCORE ",\"num_labels\":1.0"));
    BAD("id2label is {\"0\":\"a\",\"1\":\"b\"}",
        WITH(SCORE ",\"id2label\":{\"0\":\"a\",\"1\":\"b\"}"));
    BAD("architectures is [\"LlamaForCausalLM\"]",
        WITH("\"architectures\":[\"LlamaForCausalLM\"]"));
    BAD("architectures is [\"GPTNeoXModel\"]", WITH("\"architectures\":[\"GPTNeoXModel\"]"));
    BAD("architectures is []", WITH("\"architectures\":[]"));
    BAD("architectures is 3", WITH("\"architectures\":3"));
}
END_TEST

/* A required size is named when it is missing, of the wrong type or out of range. */
START_TEST(test_sizes)
{
    static const char *const fields[] = {"vocab_size", "num_hidden_layers", "hidden_size",
                                         "num_attention_heads", "intermediate_size"};
    static const char *const wrong[] = {"0",    "-1",   "1.5",        "\"8\"",
                                        "null", "true", "2147483648", "[8]"};
    for (size_t field = 0; field < 5; field++) {
        for (int k = -1; k < 8; k++) {
            char text[400] = "{\"model_type\":\"gpt_neox\"", expected[100];
            for (size_t i = 0; i < 5; i++)
                if (i != field || k >= 0)
                    snprintf(text + strlen(text), sizeof text - strlen(text), ",\"%s\":%s",
                             fields[i], i == field ? wrong[k] : "8");
            strcat(text, "}");
            snprintf(expected, sizeof expected, "config.json: %s is %s, expected", fields[field],
                     k < 0 ? "missing" : wrong[k]);
            FAILS(PREFOPT_ERR_FORMAT, expected, parse(text));
        }
    }
    BAD("hidden_size is 8, expected a multiple of num_attention_heads, 3",
        "{\"model_type\":\"gpt_neox\",\"vocab_size\":8,\"num_hidden_layers\":2,\"hidden_size\":8,"
        "\"num_attention_heads\":3,\"intermediate_size\":12}");
    BAD("vocab_size 2147483647, num_hidden_layers 1000",
        "{\"model_type\":\"gpt_neox\",\"vocab_size\":2147483647,\"num_hidden_layers\":1000,"
        "\"hidden_size\":2147483647,\"num_attention_heads\":1,\"intermediate_size\":2147483647}");
    BAD("max_position_embeddings is 0", WITH("\"max_position_embeddings\":0"));
}
END_TEST

START_TEST(test_wrong)
{
    BAD("model_type is missing", "{}");
    BAD("model_type is \"llama\"", "{\"model_type\":\"llama\"}");
    BAD("not an object", "[]");
    BAD("line 1", "");
    BAD("line 1", "{");
    BAD("line 1", "{\"a\":1,\"a\":2}");
    BAD("line 2", "{\n\"a\":1e999}");
    BAD("attention_bias is false", WITH("\"attention_bias\":false"));
    BAD("attention_bias is 1", WITH("\"attention_bias\":1"));
    BAD("use_parallel_residual is \"yes\"", WITH("\"use_parallel_residual\":\"yes\""));
    BAD("tie_word_embeddings is null", WITH("\"tie_word_embeddings\":null"));
    BAD("rotary_pct is 1.5", WITH("\"rotary_pct\":1.5"));
    BAD("rotary_pct is -0.25", WITH("\"rotary_pct\":-0.25"));
    BAD("rotary_pct is \"0.25\"", WITH("\"rotary_pct\":\"0.25\""));
    BAD("rotary_pct is 0.45: it turns 3 of a head's 8", WITH("\"rotary_pct\":0.45"));
    BAD("rope_theta is 1,", WITH("\"rope_theta\":1"));
    BAD("rope_theta is true", WITH("\"rope_theta\":true"));
    BAD("layer_norm_eps is 0", WITH("\"layer_norm_eps\":0"));
    BAD("layer_norm_eps is null", WITH("\"layer_norm_eps\":null"));
    BAD("initializer_range is -0.02", WITH("\"initializer_range\":-0.02"));
    BAD("eos_token_id is 11", WITH("\"eos_token_id\":11"));
    BAD("eos_token_id is -1", WITH("\"eos_token_id\":-1"));
    BAD("eos_token_id is 0.0", WITH("\"eos_token_id\":0.0"));
    BAD("eos_token_id is [1,2]", WITH("\"eos_token_id\":[1,2]"));
    OK(parse(WITH("\"eos_token_id\":[1]")));
    ck_assert_int_eq(c.eos, 1);
    OK(parse(WITH("\"eos_token_id\":null,\"unknown\":[{\"a\":\"\\u0000\"}]")));
    ck_assert_int_eq(c.eos, -1);
    /* On failure the outputs are as before. */
    OK(parse(WITH("\"tie_word_embeddings\":true")));
    ck_assert_int_ne(parse(WITH("\"tie_word_embeddings\":false,\"initializer_range\":\"a\"")),
                     PREFOPT_OK);
    ck_assert_int_eq(c.tied, 1);
}
END_TEST

START_TEST(test_round_trip)
{
    prefopt_context *context = test_context(1);
    for (int k = 0; k < 16; k++) {
        prefopt_transformer_config was = small_config();
        was.activation = k & 1;
        was.parallel_residual = k >> 1 & 1;
        was.tied = k >> 2 & 1;
        was.eos = k % 3 - 1;
        was.rotary_fraction = k & 8 ? 0.5 : 1;
        was.rotary_base = k & 4 ? 10000 : 12345.678901234567;
        was.norm_epsilon = k & 2 ? 1e-5 : 1.0 / 3e6;
        was.init_scale = k & 1 ? 0.02 : 0;
        char *text;
        int64_t n;
        OK(pf_config_text(context, &was, k >> 3 & 1, PREFOPT_BF16, &text, &n));
        OK(pf_config_parse("config.json", text, n, &c, &head));
        ck_assert_mem_eq(&c, &was, sizeof was);
        ck_assert_int_eq(head, k >> 3 & 1);
        text[n - 1] = 0;
        ck_assert_ptr_nonnull(strstr(text, "\"torch_dtype\": \"bfloat16\""));
        pf_free(context, text);
    }
    prefopt_context_destroy(context);
}
END_TEST

TEST_MAIN("config", test_defaults, test_spellings, test_head, test_sizes, test_wrong,
          test_round_trip)
