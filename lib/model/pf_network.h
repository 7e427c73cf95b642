/* Internal face of the transformer's forward and backward pass: the ragged batch, the activations,
 * the network.
 *
 * Rows are tokens: [rows, width] matrices hold one vector a token of the batch, no padding. */
#ifndef PF_NETWORK_H
#define PF_NETWORK_H

#include <stdatomic.h>

#include "math/pf_kept_logits.h"
#include "model/pf_model.h"

/* ---- the batch (token_rows.c)
 *
 * Sequences by prompt: the rows of a prompt once, then the rows of each of its completions. A
 * completion's rows see its prompt's rows and their own before them. */

typedef struct {
    int64_t first, n; /* rows */
    int64_t sequence; /* of the view */
} pf_segment;

typedef struct {
    int64_t first, n;                   /* the prompt's rows, at positions 0 .. n - 1 */
    int64_t first_segment, end_segment; /* its completions, at positions n, n + 1 ... */
} pf_prompt_group;

typedef struct {
    int64_t n_rows, n_groups, n_segments, n_targets;
    int64_t longest;         /* rows that one row can see, at most */
    int32_t *token;          /* n_rows */
    int64_t *position;       /* n_rows */
    pf_prompt_group *groups; /* n_groups */
    pf_segment *segments;    /* n_segments: in the order of the view within a group */
    /* What the head looks at: LOGITS: the row before each completion token, with the token; SCORE:
     * the last row of each sequence, token -1. Targets of a segment lie together. */
    int64_t *target_row;   /* n_targets */
    int32_t *target_token; /* n_targets */
    int32_t *before_token; /* n_targets: the token of target_row */
    int64_t *first_target; /* n_segments + 1 */
    int64_t capacity;      /* bytes of `memory`, which holds all of the above */
    void *memory;
} pf_token_rows;

/* Which sequences a batch may have, and how many rows and targets they make. */
typedef struct {
    int64_t n_rows, n_targets;
} pf_row_count;

/* The prompt of each sequence of a view, numbered by first appearance. */
typedef struct {
    prefopt_context *context;
    const prefopt_sequences *in; /* borrowed */
    int32_t head;                /* pf_head */
    int64_t n_prompts;
    int64_t *prompt; /* in->n */
    int64_t n;       /* sequences of which something is wanted */
    int64_t *order;  /* n: them by prompt, in their order within one */
} pf_prompts;

/* `in` was checked and has n >= 1. Left out: LOGITS, empty completions; sequences whose grad (NULL:
 * none is known) is 0. */
int32_t pf_prompts_create(pf_prompts *prompts, prefopt_context *context,
                          const prefopt_sequences *in, int32_t head, const double *grad);
void pf_prompts_clear(pf_prompts *prompts);

/* Counts what order[first .. end) makes. */
pf_row_count pf_prompts_count(const pf_prompts *prompts, int64_t first, int64_t end);
/* One sequence more at place `at`; fresh: its prompt was not counted yet. */
void pf_prompts_add(const pf_prompts *prompts, int64_t at, bool fresh, pf_row_count *count);

/* The rows of order[first .. end). Memory is used again from call to call. */
int32_t pf_token_rows_build(pf_token_rows *rows, const pf_prompts *prompts, int64_t first,
                            int64_t end);
void pf_token_rows_clear(pf_token_rows *rows, prefopt_context *context);

/* ---- activations (activations.c)
 *
 * Views into one block of memory, cut anew for each batch. With `keep`, each layer has its own;
 * with `recompute` each has its input alone, and the rest is computed again in the backward pass;
 * without `keep` all layers share one. */
typedef struct {
    float *x;                             /* [rows, width]: its input */
    float *mid;                           /* sequential: [rows, width], between its halves */
    float *mean1, *rstd1, *mean2, *rstd2; /* [rows] */
    float *qkv;                           /* [rows, 3 width]: by head q, k (turned), v */
    float *attended;                      /* [rows, width] */
    float *lse;                           /* [heads, rows]: log sum exp of the scores */
    float *up;                            /* [rows, ff_width]: before bias and activation */
} pf_layer_state;

typedef struct {
    prefopt_context *context;
    float *memory;
    int64_t capacity; /* floats */
    bool keep, recompute;
    pf_layer_state *layers; /* n_layers */
    float *top;             /* [rows, width]: output of the last layer */
    float *mean, *rstd;     /* [rows]: of the final norm */
    float *hidden;          /* [targets, width]: what the head sees */
    float *h;               /* scratch [rows, width] */
    float *inner;           /* scratch [rows, ff_width] */
    float *scores;          /* scratch of attention: n_slots of slot_size */
    int64_t slot_size, n_slots;
    atomic_bool *slot_used;
    /* Backward alone. */
    float *dx, *dh; /* [rows, width] */
    float *dqkv;    /* [rows, 3 width] */
    float *partial; /* [chunks of rows, 2 width]: parts of norms' gradients */
    float *dhidden; /* [targets, width] */
    pf_turns turns;
    int64_t n_rows;
} pf_activations;

enum {
    PF_NORM_CHUNK = 32,    /* rows of a task that works row by row */
    PF_COLUMN_CHUNK = 128, /* columns of a task that sums rows */
    PF_QUERY_BLOCK = 64    /* rows whose attention scores are computed together */
};

/* Floats that a batch takes with one thread; each further one takes a block of attention scores
 * more. Saturates. */
int64_t pf_activations_size(const pf_shape *shape, int64_t n_rows, int64_t n_targets,
                            int64_t longest, bool keep, bool recompute);
/* Cuts the memory for a batch, growing it where it is short. */
int32_t pf_activations_fit(pf_activations *a, prefopt_context *context, const pf_shape *shape,
                           const pf_token_rows *rows, bool keep, bool recompute);
void pf_activations_clear(pf_activations *a);
float *pf_scores_take(pf_activations *a);
void pf_scores_give(pf_activations *a, float *scores);

/* ---- one layer (attention.c, neox_layer.c): everything a pass needs */
typedef struct {
    prefopt_context *context;
    const pf_shape *shape;
    const float *value; /* parameters */
    float *grad;        /* NULL in forward passes */
    const pf_token_rows *rows;
    pf_activations *a;
} pf_pass;

/* attended and lse from qkv. */
void pf_attention(const pf_pass *pass, pf_layer_state *layer);
/* dqkv (of turned q and k) from dattended [rows, width]. */
void pf_attention_backward(const pf_pass *pass, const pf_layer_state *layer,
                           const float *dattended);

/* next [rows, width] = the layer's output; may be state->x. */
int32_t pf_neox_layer(const pf_pass *pass, int64_t layer, pf_layer_state *state, float *next);
/* a->dx from the gradient of the output to that of the input; adds the parameters' to pass->grad.
 */
int32_t pf_neox_layer_backward(const pf_pass *pass, int64_t layer, pf_layer_state *state);

/* dx += what dy, the gradient of a norm's output, gives for its input; the norm's gain and bias are
 * at these offsets. */
void pf_norm_backward(const pf_pass *pass, const float *x, float *mean, float *rstd, int64_t gain,
                      int64_t bias, const float *dy, float *dx);

/* ---- the network (network.c): embedding, layers, final norm */

/* a->hidden of the batch. */
int32_t pf_network_forward(const pf_pass *pass);
/* From a->dhidden to pass->grad; the forward pass has kept what it needs. */
int32_t pf_network_backward(const pf_pass *pass);

/* ---- a transformer's weights and workspaces (transformer.c): what policy and reward share */

/* Shared by clones until one of them is asked for its parameters. */
typedef struct {
    _Atomic int64_t references;
    float *value; /* shape->n */
} pf_weights;

/* What one call at a time computes in; kept from call to call. */
typedef struct {
    pf_token_rows rows;
    pf_activations a;
    pf_kept_logits logits;
    double *target_logp, *target_grad; /* one a target */
    int64_t target_capacity;
    /* The sequences whose forward pass is kept for a backward pass: kept_n, 0: none. */
    int64_t kept_n, kept_tokens_capacity, kept_numbers_capacity;
    int32_t *kept_tokens;
    int64_t *kept_numbers; /* offsets from 0, n + 1, then prompt lengths, n */
} pf_workspace;

typedef struct {
    prefopt_context *context;
    pf_shape *shape;
    pf_weights *weights;
    float *grad; /* NULL: never asked for */
    bool recompute;
    bool glances;                         /* nobody will ask for the way back */
    pf_transitions *transitions;          /* NULL: every token may follow */
    _Atomic(pf_workspace *) workspace;    /* NULL: in use, or none yet */
    _Atomic(struct pf_decoder *) decoder; /* likewise; a small one */
} pf_transformer;

/* weights NULL: fresh memory, not written. The shape is retained. */
int32_t pf_transformer_create(pf_transformer **out, pf_shape *shape, pf_weights *weights);
int32_t pf_transformer_clone(const pf_transformer *model, pf_transformer **out);
void pf_transformer_destroy(pf_transformer *model);
int32_t pf_transformer_parameters(pf_transformer *model, prefopt_parameters *out);
/* Forgets what was kept. NUMERIC: names the tensor with a parameter that is not finite. */
int32_t pf_transformer_updated(pf_transformer *model);

/* For the extras of policy and reward (pf_model.h). */
void pf_transformer_values(void *payload, pf_values *out);
int32_t pf_transformer_hash(void *payload, uint64_t *out);
void pf_transformer_glance(void *payload, bool on);

int32_t pf_transformer_set_recompute(pf_transformer *model, int32_t recompute);
/* Retains transitions (NULL: none) in place of those before. */
void pf_transformer_set_transitions(pf_transformer *model, pf_transitions *transitions);

/* Handles around a model, which they take over: on failure it is destroyed. */
int32_t pf_policy_transformer_wrap(prefopt_policy **out, pf_transformer *model);
int32_t pf_reward_transformer_wrap(prefopt_reward **out, pf_transformer *model);
/* The model of a handle. UNSUPPORTED: it is of another kind. */
int32_t pf_policy_transformer_of(const prefopt_policy *policy, const pf_transformer **out);
int32_t pf_reward_transformer_of(const prefopt_reward *reward, const pf_transformer **out);

/* The model's workspace, or one of the call's own when another call has it. */
int32_t pf_workspace_take(pf_transformer *model, pf_workspace **out);
void pf_workspace_give(pf_transformer *model, pf_workspace *workspace);

/* Remembers that the workspace holds the forward pass of `in`; without memory it does not. */
void pf_workspace_keep(const pf_transformer *model, pf_workspace *workspace,
                       const prefopt_sequences *in);
bool pf_workspace_keeps(const pf_workspace *workspace, const prefopt_sequences *in);

/* ---- a batch in parts (transformer_parts.c) */

/* What policy and reward do between the network and their results. */
typedef struct {
    int32_t kind; /* pf_head */
    /* Results of the part whose forward pass the workspace holds, into what out points at (NULL:
     * only what backward needs); keep: backward may follow. */
    int32_t (*forward)(const pf_transformer *model, pf_workspace *workspace, bool keep,
                       const prefopt_sequences *in, void *out);
    /* workspace->a.dhidden from grad [in->n], the gradient of the results; adds the head's own to
     * model->grad. */
    void (*backward)(pf_transformer *model, pf_workspace *workspace, const double *grad);
} pf_head_ops;

/* `in` is a checked view with n >= 1. Keeps the pass for the way back where it fits and there are
 * gradients. On failure what out points at holds anything. */
int32_t pf_transformer_forward(pf_transformer *model, const pf_head_ops *head,
                               const prefopt_sequences *in, void *out);
/* Adds to the gradient. */
int32_t pf_transformer_backward(pf_transformer *model, const pf_head_ops *head,
                                const prefopt_sequences *in, const double *grad);

/* Tokens, lengths and prompts of a checked view are what the model can take. ARGUMENT: names the
 * sequence. */
int32_t pf_transformer_check(const pf_shape *shape, const prefopt_sequences *in, int32_t head);
/* See pf_policy_keeps. */
int64_t pf_transformer_keeps(const pf_transformer *model, const prefopt_sequences *in,
                             int32_t head);

/* ---- loops (row_loops.c) */

/* fn(payload, first, n) over chunks of rows on the context's threads. */
typedef void pf_rows_fn(void *payload, int64_t first, int64_t n);
void pf_for_rows(prefopt_context *context, int64_t n_rows, pf_rows_fn *fn, void *payload);
/* sum [columns] += the rows of x [n_rows, columns]. */
void pf_sum_rows(prefopt_context *context, int64_t n_rows, int64_t columns, const float *x,
                 float *sum);

#endif
