/* A batch through a transformer and back, in parts that fit the byte budget. What comes after the
 * last norm is the head's: logits of a policy, scores of a reward. */
#include "model/pf_network.h"

/* ---------------------------------------------------------------- parts */

int32_t pf_transformer_check(const pf_shape *shape, const prefopt_sequences *in, int32_t head)
{
    for (int64_t i = 0; i < in->n; i++) {
        const int32_t *tokens = pf_sequence_tokens(in, i);
        int64_t len = pf_sequence_len(in, i);
        if (len > shape->config.max_positions)
            return pf_fail(PREFOPT_ERR_ARGUMENT,
                           "sequence %lld has %lld tokens, expected at most max_positions = %lld",
                           (long long)i, (long long)len, (long long)shape->config.max_positions);
        if (head == PF_HEAD_SCORE && len == 0)
            return pf_fail(PREFOPT_ERR_ARGUMENT,
                           "sequence %lld is empty, expected at least one token", (long long)i);
        if (head == PF_HEAD_LOGITS && len > 0 && in->prompt_len[i] == 0)
            return pf_fail(PREFOPT_ERR_ARGUMENT,
                           "sequence %lld: the prompt is empty, expected at least one token before "
                           "the completion (a transformer's first token has no probability)",
                           (long long)i);
        for (int64_t t = 0; t < len; t++)
            if (tokens[t] >= shape->config.vocab)
                return pf_fail(PREFOPT_ERR_ARGUMENT,
                               "sequence %lld: token %lld is %d, expected below vocab = %lld",
                               (long long)i, (long long)t, tokens[t],
                               (long long)shape->config.vocab);
    }
    return PREFOPT_OK;
}

/* Rows of a part that keeps nothing: more make no product faster. */
enum { MOST_ROWS = 2048 };

/* Whatever the threads, so that parts, and with them the bits, do not depend on how many there are.
 */
static bool fits(const pf_transformer *model, pf_row_count count, int64_t longest, int32_t head,
                 bool keep)
{
    if (!keep && count.n_rows > MOST_ROWS)
        return false;
    int64_t width = model->shape->config.width, vocab = model->shape->config.vocab;
    int64_t bytes = 4 * pf_activations_size(model->shape, count.n_rows, count.n_targets, longest,
                                            keep, model->recompute);
    if (keep && head == PF_HEAD_LOGITS &&
        !pf_add(bytes, pf_kept_logits_bytes(count.n_targets, width, vocab), &bytes))
        return false;
    return bytes <= pf_context_byte_budget(model->context);
}

/* The end of the largest part of prompts->order from `first` on that fits the byte budget; at least
 * one sequence. */
static int64_t part_end(const pf_transformer *model, const pf_prompts *prompts, int64_t first,
                        bool keep)
{
    pf_row_count count = {0, 0};
    int64_t longest = 0, at = first;
    for (; at < prompts->n; at++) {
        int64_t i = prompts->order[at], len = pf_sequence_len(prompts->in, i);
        bool fresh = at == first || prompts->prompt[i] != prompts->prompt[prompts->order[at - 1]];
        pf_prompts_add(prompts, at, fresh, &count);
        longest = len > longest ? len : longest;
        if (at > first && !fits(model, count, longest, prompts->head, keep))
            break;
    }
    return at;
}

int64_t pf_transformer_keeps(const pf_transformer *model, const prefopt_sequences *in, int32_t head)
{
    pf_prompts prompts;
    PF_TRY(pf_prompts_create(&prompts, model->context, in, head, NULL));
    /* Places in `order` of the sequences as they come, and the prompts they have had. */
    int64_t *place = pf_alloc(model->context, in->n, sizeof *place);
    bool *had = pf_calloc(model->context, prompts.n_prompts, sizeof *had);
    int64_t i = PREFOPT_ERR_MEMORY;
    if (place != NULL && had != NULL) {
        memset(place, 0xff, (size_t)in->n * sizeof *place);
        for (int64_t at = 0; at < prompts.n; at++)
            place[prompts.order[at]] = at;
        pf_row_count count = {0, 0};
        int64_t longest = 0;
        for (i = 0; i < in->n; i++) {
            int64_t len = pf_sequence_len(in, i);
            if (place[i] < 0)
                continue;
            pf_prompts_add(&prompts, place[i], !had[prompts.prompt[i]], &count);
            had[prompts.prompt[i]] = true;
            longest = len > longest ? len : longest;
            if (i > 0 && !fits(model, count, longest, head, true))
                break;
        }
    }
    pf_free(model->context, had);
    pf_free(model->context, place);
    pf_prompts_clear(&prompts);
    return i;
}

/* ---------------------------------------------------------------- passes */

static pf_pass pass_of(const pf_transformer *model, pf_workspace *workspace)
{
    return (pf_pass){.context = model->context,
                     .shape = model->shape,
                     .value = model->weights->value,
                     .grad = model->grad,
                     .rows = &workspace->rows,
                     .a = &workspace->a};
}

/* The rows of a part and all memory for it; then up to what the head sees. */
static int32_t pass_forward(const pf_transformer *model, pf_workspace *workspace,
                            const pf_prompts *prompts, int64_t first, int64_t end, bool keep)
{
    workspace->kept_n = 0;
    PF_TRY(pf_token_rows_build(&workspace->rows, prompts, first, end));
    PF_TRY(pf_activations_fit(&workspace->a, model->context, model->shape, &workspace->rows, keep,
                              keep && model->recompute));
    int64_t n = workspace->rows.n_targets;
    if (n > workspace->target_capacity) {
        pf_free(model->context, workspace->target_logp);
        pf_free(model->context, workspace->target_grad);
        workspace->target_capacity = 0;
        workspace->target_logp = pf_alloc(model->context, n, sizeof(double));
        workspace->target_grad = pf_alloc(model->context, n, sizeof(double));
        if (workspace->target_logp == NULL || workspace->target_grad == NULL)
            return PREFOPT_ERR_MEMORY;
        workspace->target_capacity = n;
    }
    pf_pass pass = pass_of(model, workspace);
    return pf_network_forward(&pass);
}

/* The gradient of the part whose forward pass the workspace holds. */
static int32_t pass_backward(pf_transformer *model, pf_workspace *workspace,
                             const pf_head_ops *head, const double *grad)
{
    head->backward(model, workspace, grad);
    pf_pass pass = pass_of(model, workspace);
    return pf_network_backward(&pass);
}

static int32_t forward_in_parts(pf_transformer *model, pf_workspace *w, const pf_head_ops *head,
                                const prefopt_sequences *in, const pf_prompts *prompts, void *out)
{
    /* Only who trains will ask for the way back. */
    bool keep = model->grad != NULL && !model->glances && prompts->n > 0 &&
                part_end(model, prompts, 0, true) == prompts->n;
    for (int64_t first = 0, end; first < prompts->n; first = end) {
        end = keep ? prompts->n : part_end(model, prompts, first, false);
        PF_TRY(pass_forward(model, w, prompts, first, end, keep));
        PF_TRY(head->forward(model, w, keep, in, out));
    }
    if (keep)
        pf_workspace_keep(model, w, in);
    return PREFOPT_OK;
}

int32_t pf_transformer_forward(pf_transformer *model, const pf_head_ops *head,
                               const prefopt_sequences *in, void *out)
{
    PF_TRY(pf_transformer_check(model->shape, in, head->kind));
    pf_prompts prompts;
    pf_workspace *w;
    PF_TRY(pf_prompts_create(&prompts, model->context, in, head->kind, NULL));
    int32_t status = pf_workspace_take(model, &w);
    if (status == PREFOPT_OK) {
        status = forward_in_parts(model, w, head, in, &prompts, out);
        pf_workspace_give(model, w);
    }
    pf_prompts_clear(&prompts);
    return status;
}

static int32_t backward_in_parts(pf_transformer *model, pf_workspace *w, const pf_head_ops *head,
                                 const prefopt_sequences *in, const double *grad)
{
    pf_prompts prompts;
    PF_TRY(pf_prompts_create(&prompts, model->context, in, head->kind, grad));
    int32_t status = PREFOPT_OK;
    for (int64_t first = 0, end; first < prompts.n && status == PREFOPT_OK; first = end) {
        end = part_end(model, &prompts, first, true);
        status = pass_forward(model, w, &prompts, first, end, true);
        if (status == PREFOPT_OK)
            status = head->forward(model, w, true, in, NULL);
        if (status == PREFOPT_OK)
            status = pass_backward(model, w, head, grad);
    }
    pf_prompts_clear(&prompts);
    return status;
}

int32_t pf_transformer_backward(pf_transformer *model, const pf_head_ops *head,
                                const prefopt_sequences *in, const double *grad)
{
    PF_TRY(pf_transformer_check(model->shape, in, head->kind));
    prefopt_parameters parameters;
    PF_TRY(pf_transformer_parameters(model, &parameters));
    pf_workspace *w;
    PF_TRY(pf_workspace_take(model, &w));
    int32_t status;
    if (pf_workspace_keeps(w, in)) {
        w->kept_n = 0;
        status = pass_backward(model, w, head, grad);
    } else
        status = backward_in_parts(model, w, head, in, grad);
    pf_workspace_give(model, w);
    return status;
}
