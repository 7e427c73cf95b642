/* What all worlds of the gap study share. */
#include "gap_world.h"

#include "cli.h"

double gap_uniform(gap_random *r)
{
    double x;
    CALL(prefopt_random_uniform(r->seed, r->stream, r->next++, 1, &x));
    return x;
}

int gap_below(gap_random *r, int n)
{
    int i = (int)(gap_uniform(r) * n);
    return i < n ? i : n - 1;
}

int gap_is_legal(const gap_world *w, const int32_t *prompt, const int32_t *completion)
{
    int32_t before = prompt[w->prompt_len - 1];
    if (w->allowed == NULL)
        return 1;
    for (int i = 0; i < w->length; i++) {
        if (!w->allowed[before * w->vocab + completion[i]])
            return 0;
        before = completion[i];
    }
    return 1;
}

/* The true reward as a reward model; what is not legal earns nothing. */
static int32_t true_scores(void *payload, const prefopt_sequences *in, double *score)
{
    const gap_world *w = payload;
    for (int64_t i = 0; i < in->n; i++) {
        const int32_t *prompt = in->tokens + in->offsets[i];
        const int32_t *completion = prompt + in->prompt_len[i];
        int whole = in->offsets[i + 1] - in->offsets[i] == w->prompt_len + w->length;
        score[i] = whole && gap_is_legal(w, prompt, completion)
                       ? w->scale * w->success(w, prompt, completion)
                       : 0;
    }
    return PREFOPT_OK;
}

void gap_world_prepare(gap_world *w)
{
    prefopt_context_options one_thread;
    CALL(prefopt_context_options_init(&one_thread, sizeof one_thread));
    one_thread.threads = 1;
    CALL(prefopt_context_create(&w->context, &one_thread));
    CALL(prefopt_dataset_create(&w->train, w->context));
    CALL(prefopt_dataset_create(&w->held, w->context));
    prefopt_reward_callbacks callbacks = {.struct_size = sizeof callbacks, .scores = true_scores};
    CALL(prefopt_reward_create_custom(&w->truth, w->context, &callbacks, w));
}

void gap_world_add_prompt(gap_world *w, int held_out, const int32_t *prompt)
{
    prefopt_row row;
    CALL(prefopt_row_init(&row, sizeof row));
    row.prompt = prompt;
    row.prompt_len = w->prompt_len;
    CALL(prefopt_dataset_append(held_out ? w->held : w->train, &row));
}

void gap_world_destroy(gap_world *w)
{
    if (w->destroy != NULL)
        w->destroy(w);
    prefopt_reward_destroy(w->truth);
    prefopt_dataset_destroy(w->train);
    prefopt_dataset_destroy(w->held);
    prefopt_context_destroy(w->context);
}

prefopt_dataset *gap_prompts(const gap_world *w, const prefopt_dataset *part, int64_t n,
                             uint64_t stream)
{
    gap_random random = {w->seed, stream, 0};
    int64_t *rows = calloc((size_t)n, sizeof *rows);
    prefopt_dataset *out;
    if (rows == NULL)
        exit(1);
    for (int64_t i = 0; i < n; i++)
        rows[i] = gap_below(&random, (int)prefopt_dataset_size(part));
    CALL(prefopt_dataset_select(&out, part, rows, n));
    free(rows);
    return out;
}

prefopt_dataset *gap_demonstrations(const gap_world *w, int64_t n)
{
    prefopt_dataset *prompts = gap_prompts(w, w->train, n, STREAM_DEMONSTRATIONS), *out;
    gap_random random = {w->seed, STREAM_DEMONSTRATIONS, (uint64_t)n};
    int32_t completion[64];
    int64_t offsets[2] = {0, w->length};
    CALL(prefopt_dataset_create(&out, w->context));
    for (int64_t i = 0; i < n; i++) {
        prefopt_row row = {.struct_size = sizeof row};
        CALL(prefopt_dataset_row(prompts, i, &row));
        w->demonstrate(w, row.prompt, completion, &random);
        row.kind = PREFOPT_ROW_COMPLETIONS;
        row.n_completions = 1;
        row.completions = completion;
        row.completion_offsets = offsets;
        CALL(prefopt_dataset_append(out, &row));
    }
    prefopt_dataset_destroy(prompts);
    return out;
}

double gap_legal_share(const gap_world *w, const prefopt_dataset *samples)
{
    prefopt_sequences s = {.struct_size = sizeof s};
    int64_t legal = 0;
    CALL(prefopt_dataset_sequences(samples, &s));
    for (int64_t i = 0; i < s.n; i++) {
        const int32_t *prompt = s.tokens + s.offsets[i];
        legal += gap_is_legal(w, prompt, prompt + s.prompt_len[i]);
    }
    return s.n > 0 ? (double)legal / (double)s.n : 1;
}
