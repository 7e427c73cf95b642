/* prefopt/transformer.h: language models: a transformer as policy or reward model, and its
 * checkpoints.
 *
 *     prefopt_policy *policy;
 *     prefopt_policy_load(&policy, context, "pythia-70m");    a folder in Hugging Face's layout
 *     prefopt_policy_logprobs(policy, &sequences, sequence_logp, NULL);
 *     prefopt_reward *reward;
 *     prefopt_reward_from_policy(&reward, policy);            softmax off, a linear head on
 *     prefopt_policy_save(policy, "tuned");
 *
 * A transformer stands behind the same dispatch table as every other policy. Its parameters are
 * float32, in one array, its gradients in another; prefopt_policy_tensor names their parts.
 *
 * How it computes: the sequences of a call are laid end to end without padding, and a prompt that
 * several of them share is computed once, forward and backward. What a call needs beyond the
 * parameters is held within the context's byte_budget (one sequence's part at the least; each
 * thread after the first takes up to 512 bytes a token of the longest sequence besides): larger
 * batches are worked through in parts, the same whatever the threads. What sampling took, up to 64
 * MiB, stays with the policy for the next call. Once a policy has been trained (its gradient was
 * asked for), a logprobs call whose batch fits the budget keeps what it computed, and a backward
 * call for the same sequences, before the parameters change, goes on from there. A backward call
 * that works through its batch in parts and fails in one of them (no memory, a logit that
 * overflows) has added the gradients of those before. */
#ifndef PREFOPT_TRANSFORMER_H
#define PREFOPT_TRANSFORMER_H

#include "model.h"

#ifdef __cplusplus
extern "C" {
#endif

/* GPT-NeoX (Black et al., arXiv 2204.06745; the Pythia models, Biderman et al., arXiv 2304.01373):
 *     x <- x + attention(norm1(x)) + mlp(norm2(x))            parallel residual, or
 *     x <- x + attention(norm1(x)); x <- x + mlp(norm2(x))    sequential
 * with rotary positions on a part of each head, and layer norms with bias. */
enum prefopt_architecture { PREFOPT_GPT_NEOX = 0 };

/* PREFOPT_GELU: x Phi(x). PREFOPT_GELU_TANH: x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2. */
enum prefopt_activation { PREFOPT_GELU = 0, PREFOPT_GELU_TANH = 1 };

typedef struct prefopt_transformer_config {
    uint32_t struct_size;
    int32_t architecture;      /* prefopt_architecture; default GPT_NEOX */
    int32_t activation;        /* prefopt_activation; default GELU */
    int32_t parallel_residual; /* 1 (default) or 0 */
    int32_t tied;              /* 1: the output matrix is the embedding; default 0 */
    int32_t eos;               /* token that ends a completion; -1: none; default 0 */
    int64_t vocab;             /* 1 .. 2^31 - 1; default 50,304 */
    int64_t n_layers;          /* 1 .. 1,000; default 6 */
    int64_t width;             /* a multiple of n_heads; default 512 */
    int64_t n_heads;           /* default 8 */
    int64_t ff_width;          /* of the MLP's inner layer; default 2,048 */
    int64_t max_positions;     /* tokens of the longest sequence; default 2,048 */
    double rotary_fraction;    /* of a head's dimensions that turn, in [0, 1]: floor(width /
                                  n_heads * fraction), which must be even; default 0.25 */
    double rotary_base;        /* > 1; default 10,000 */
    double norm_epsilon;       /* > 0; default 1e-5 */
    double init_scale;         /* standard deviation of fresh weights, >= 0; default 0.02 */
} prefopt_transformer_config;

/* Fills config with the defaults (the shape of Pythia-70m). Errors: ARGUMENT (NULL), VERSION.
 * Thread-safe. Since 0.1. */
PREFOPT_API int32_t prefopt_transformer_config_init(prefopt_transformer_config *config,
                                                    uint32_t struct_size);

/* A transformer from scratch: matrices normal with standard deviation init_scale, biases 0, norms 1
 * and 0, as `transformers` begins. The same seed gives the same weights, whatever the threads. Its
 * space: vocab, eos, horizon max_positions (of which a prompt takes its part). config NULL:
 * defaults. The caller owns *out. Errors: ARGUMENT (names the field), NUMERIC, MEMORY, VERSION.
 * Thread-safe. Since 0.1. */
PREFOPT_API int32_t prefopt_policy_create_transformer(prefopt_policy **out,
                                                      prefopt_context *context,
                                                      const prefopt_transformer_config *config,
                                                      uint64_t seed);

/* The configuration of a transformer. Errors: ARGUMENT, UNSUPPORTED (another kind of policy),
 * VERSION. Thread-safe. Since 0.1. */
PREFOPT_API int32_t prefopt_policy_transformer_config(const prefopt_policy *policy,
                                                      prefopt_transformer_config *out);

/* A named part of a model's parameters: value[offset .. offset + rows * columns), row by row. The
 * gradient lies alike. */
typedef struct prefopt_tensor {
    uint32_t struct_size;
    int32_t n_dims;   /* 1: a vector, `columns` is 1; 2: a matrix [rows, columns] */
    const char *name; /* as in the checkpoint; valid as long as the policy */
    int64_t offset;   /* in elements */
    int64_t rows, columns;
} prefopt_tensor;

/* Tensor i, from 0, in the order in which they lie. Errors: ARGUMENT (i is past the last: says how
 * many there are), UNSUPPORTED (a policy of another kind), VERSION. Thread-safe. Since 0.1. */
PREFOPT_API int32_t prefopt_policy_tensor(const prefopt_policy *policy, int64_t i,
                                          prefopt_tensor *out);

/* Whether the backward pass computes the layers again (1) from their inputs alone instead of
 * keeping what they computed (0, the default): a third more time for a fraction of the memory, and
 * the same bits where the byte budget holds the batch either way (with less memory a sequence the
 * parts of a larger batch become larger: then the same but for rounding). Errors: ARGUMENT,
 * UNSUPPORTED (another kind of policy). Since 0.1. */
PREFOPT_API int32_t prefopt_policy_set_recompute(prefopt_policy *policy, int32_t recompute);

/* Which token may follow which, where the data have a grammar (moves on a board, edges of a graph):
 *     pi(v | ..., u) = allowed[u, v] exp(z_v) / sum_w allowed[u, w] exp(z_w),
 * z the logits after the tokens up to u. allowed [vocab, vocab], row: the token before, entries 0
 * or 1, is copied; NULL: every token may follow, as at first. A completion with a token that may
 * not follow has log-probability -INFINITY and no gradient; prompts may have any tokens. It holds
 * for log-probabilities, gradients and samples of this policy and of what is frozen from it later,
 * not of what was frozen before, and is not written to checkpoints. Errors: ARGUMENT (an entry of
 * another value, a row without an allowed token: names them), UNSUPPORTED (another kind of policy),
 * MEMORY. Since 0.1. */
PREFOPT_API int32_t prefopt_policy_set_transitions(prefopt_policy *policy, const uint8_t *allowed);

/* A reward model on a policy's layers, copied: the softmax comes off, and a linear head goes on the
 * hidden state after the last token of prompt and completion, score = w . h (Ziegler et al., arXiv
 * 1909.08593). w starts at 0, and with it every score. A sequence must have a token. The caller
 * owns *out. Errors: ARGUMENT, UNSUPPORTED (the policy is not a transformer), MEMORY. Since 0.1. */
PREFOPT_API int32_t prefopt_reward_from_policy(prefopt_reward **out,
                                               const prefopt_policy *backbone);

/* As the calls of the same name on a policy. Since 0.1. */
PREFOPT_API int32_t prefopt_reward_tensor(const prefopt_reward *reward, int64_t i,
                                          prefopt_tensor *out);
PREFOPT_API int32_t prefopt_reward_set_recompute(prefopt_reward *reward, int32_t recompute);

/* ---------------------------------------------------------------- checkpoints */

/* A policy from a folder in Hugging Face's layout: config.json (model_type gpt_neox; old and new
 * spellings of the rotary fields) and model.safetensors, or shards with
 * model.safetensors.index.json. F32, F16 and BF16 are read, into float32. Everything is checked
 * against the configuration: a missing, extra, misshapen or overlapping tensor, or a weight that is
 * not finite, is an error that names file and tensor. The caller owns *out.
 * Errors: IO (names the path), FORMAT, ARGUMENT, UNSUPPORTED (built without JSON), MEMORY.
 * Thread-safe. Since 0.1. */
PREFOPT_API int32_t prefopt_policy_load(prefopt_policy **out, prefopt_context *context,
                                        const char *directory);

/* Writes config.json and model.safetensors, tensors as float32. At every moment, also when the
 * process is killed or the disk is full, the folder holds the old checkpoint or the new one, whole;
 * its other files stay (a tokenizer beside the weights, say).
 * Errors: IO, ARGUMENT, NUMERIC (a weight is not finite: names the tensor), UNSUPPORTED (not a
 * transformer; built without JSON), MEMORY. Since 0.1. */
PREFOPT_API int32_t prefopt_policy_save(const prefopt_policy *policy, const char *directory);

/* The same with tensors of a prefopt_dtype: PREFOPT_F32, F16 or BF16, rounded to nearest even.
 * Errors: also NUMERIC where a weight overflows F16. Since 0.1. */
PREFOPT_API int32_t prefopt_policy_save_as(const prefopt_policy *policy, const char *directory,
                                           int32_t dtype);

/* The same for reward models: GPTNeoXForSequenceClassification with one label, whose head is
 * score.weight [1, width]. Since 0.1. */
PREFOPT_API int32_t prefopt_reward_load(prefopt_reward **out, prefopt_context *context,
                                        const char *directory);
PREFOPT_API int32_t prefopt_reward_save(const prefopt_reward *reward, const char *directory);
PREFOPT_API int32_t prefopt_reward_save_as(const prefopt_reward *reward, const char *directory,
                                           int32_t dtype);

#ifdef __cplusplus
}
#endif
#endif
