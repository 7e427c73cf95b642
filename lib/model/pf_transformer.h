/* Internal face of the transformer: its shape as a table of named tensors, its weights, its
 * batches.
 *
 * A family of transformers is a table of tensors (transformer_shape.c) and a forward and backward
 * of one layer (neox_layer.c); the rest is shared. */
#ifndef PF_TRANSFORMER_H
#define PF_TRANSFORMER_H

#include "base/pf_base.h"
#include "prefopt/transformer.h"

/* ---- the shape (transformer_shape.c) */

/* What the last layer's output goes to: logits of the next token, or one score. */
enum pf_head { PF_HEAD_LOGITS = 0, PF_HEAD_SCORE = 1 };

enum { PF_TENSOR_NAME = 80 };
typedef struct {
    char name[PF_TENSOR_NAME]; /* as `transformers` writes it */
    int32_t n_dims;            /* 1 or 2 */
    int64_t rows, columns;     /* columns is 1 where n_dims is 1 */
    int64_t offset;            /* in elements, from the start of the parameters */
} pf_tensor;

/* Offsets of one layer's tensors. Matrices are [out, in] as in checkpoints: y = x W^T + b. */
typedef struct {
    int64_t norm1, norm1_bias, norm2, norm2_bias; /* [width] */
    int64_t qkv, qkv_bias;                        /* [3 width, width]: by head q, k, v */
    int64_t out, out_bias;                        /* [width, width] */
    int64_t up, up_bias;                          /* [ff_width, width] */
    int64_t down, down_bias;                      /* [width, ff_width] */
} pf_layer_offsets;

/* Immutable once made; counted. */
typedef struct {
    prefopt_context *context;
    _Atomic int64_t references;
    prefopt_transformer_config config;
    int32_t head; /* pf_head */
    int64_t n;    /* parameters */
    int64_t n_tensors;
    pf_tensor *tensors;       /* in the order of their offsets */
    int64_t embedding;        /* [vocab, width] */
    pf_layer_offsets *layers; /* n_layers */
    int64_t norm, norm_bias;  /* [width] */
    int64_t output;           /* [vocab, width], the embedding's where tied; SCORE: [1, width] */
    int64_t head_width;       /* width / n_heads */
    int64_t rotary;           /* dimensions of a head that turn: even */
} pf_shape;

/* Checks the caller's config (NULL: defaults) and copies it. ARGUMENT or NUMERIC, names the field.
 */
int32_t pf_transformer_config_read(prefopt_transformer_config *own,
                                   const prefopt_transformer_config *config);
/* Dimensions of a head that turn. */
int64_t pf_rotary_dimensions(const prefopt_transformer_config *config);
/* config was checked. MEMORY (also when a size overflows). */
int32_t pf_shape_create(pf_shape **out, prefopt_context *context,
                        const prefopt_transformer_config *config, int32_t head);
pf_shape *pf_shape_retain(pf_shape *shape);
void pf_shape_release(pf_shape *shape); /* NULL is fine */
/* Behind prefopt_policy_tensor; out's struct_size was checked. */
int32_t pf_shape_tensor(const pf_shape *shape, int64_t i, prefopt_tensor *out);
/* Where the k-th of the one-dimensional tensors lies, in order; false past the last. */
bool pf_shape_vector(const pf_shape *shape, int64_t k, int64_t *offset, int64_t *n);

/* ---- which token may follow which (transitions.c) */

/* Immutable once made; counted. */
typedef struct {
    prefopt_context *context;
    _Atomic int64_t references;
    int64_t vocab;
    uint8_t allowed[]; /* [vocab, vocab]: 1 where the column's token may follow the row's */
} pf_transitions;

/* allowed [vocab, vocab] is copied. ARGUMENT (names an entry that is not 0 or 1, or a row without
 * 1), MEMORY. */
int32_t pf_transitions_create(pf_transitions **out, prefopt_context *context, int64_t vocab,
                              const uint8_t *allowed);
pf_transitions *pf_transitions_retain(pf_transitions *transitions); /* NULL is fine */
void pf_transitions_release(pf_transitions *transitions);           /* NULL is fine */

/* ---- rotary angles (turns.c) */

typedef struct {
    float *cosine, *sine; /* [n, rotary / 2] */
    int64_t n;            /* positions */
} pf_turns;

/* Has the angles of positions 0 .. n - 1, n <= max_positions; on failure nothing changed. MEMORY.
 */
int32_t pf_turns_fit(pf_turns *turns, prefopt_context *context, const pf_shape *shape, int64_t n);
void pf_turns_clear(pf_turns *turns, prefopt_context *context);

/* ---- checkpoints (checkpoint.c)
 *
 * A folder with config.json and model.safetensors, or shards and model.safetensors.index.json, as
 * `transformers` writes GPTNeoXForCausalLM (LOGITS) and GPTNeoXForSequenceClassification (SCORE,
 * one label). */

/* The configuration in folder/config.json, and which head its `architectures` say. The folder has
 * tensors of exactly the shapes that it says, so what it asks to allocate is there. IO (names the
 * path), FORMAT (names file and field or tensor), UNSUPPORTED (built without JSON), MEMORY. */
int32_t pf_checkpoint_config(prefopt_context *context, const char *folder,
                             prefopt_transformer_config *config, int32_t *head);

/* All tensors of the shape into value [shape->n]; on failure that holds anything. IO, FORMAT (names
 * file and tensor), MEMORY. */
int32_t pf_checkpoint_read(const pf_shape *shape, const char *folder, float *value);

/* Writes the folder, atomically: old or new, whole, whenever the process ends. dtype: PREFOPT_F32,
 * F16 or BF16. Other files of an existing folder stay. IO, ARGUMENT (dtype), NUMERIC (a value is
 * not finite, or overflows F16: names the tensor), UNSUPPORTED, MEMORY. */
int32_t pf_checkpoint_write(const pf_shape *shape, const char *folder, const float *value,
                            int32_t dtype);

/* The same files into a folder that is there and that nobody else sees yet, in float32 and on disk
 * when it returns, and little of them in the cache (pf_file_pass). IO, NUMERIC, UNSUPPORTED,
 * MEMORY. */
int32_t pf_checkpoint_put(const pf_shape *shape, const char *folder, const float *value);

#endif
