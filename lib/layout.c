/* The layout of every public struct by name, for bindings: the only file that sees all public
 * headers and no internal one but base's. */
#include <stddef.h>
#include <string.h>

#include "prefopt/prefopt.h"

typedef struct {
    const char *name; /* of the field; of the struct where the offset is -1 */
    int64_t offset;
    int64_t size;
} entry;

#define STRUCT(type) {#type, -1, (int64_t)sizeof(type)},
#define FIELD(type, field) {#field, (int64_t)offsetof(type, field), 0},

/* clang-format off */
/* A struct's row is followed by the rows of its fields. */
static const entry entries[] = {
    /* ---- base */
    STRUCT(prefopt_context_options)
    FIELD(prefopt_context_options, struct_size)
    FIELD(prefopt_context_options, threads)
    FIELD(prefopt_context_options, byte_budget)
    FIELD(prefopt_context_options, allocate)
    FIELD(prefopt_context_options, release)
    FIELD(prefopt_context_options, allocator_payload)
    FIELD(prefopt_context_options, log)
    FIELD(prefopt_context_options, log_payload)

    /* ---- loss */
    STRUCT(prefopt_group_scores)
    FIELD(prefopt_group_scores, struct_size)
    FIELD(prefopt_group_scores, reserved)
    FIELD(prefopt_group_scores, n_groups)
    FIELD(prefopt_group_scores, group_size)
    FIELD(prefopt_group_scores, reward)
    FIELD(prefopt_group_scores, logp)
    FIELD(prefopt_group_scores, ref_logp)
    FIELD(prefopt_group_scores, old_logp)
    STRUCT(prefopt_pg_loss)
    FIELD(prefopt_pg_loss, struct_size)
    FIELD(prefopt_pg_loss, reserved)
    FIELD(prefopt_pg_loss, mean)
    FIELD(prefopt_pg_loss, kl)
    FIELD(prefopt_pg_loss, clip_fraction)
    FIELD(prefopt_pg_loss, grad_logp)
    STRUCT(prefopt_pg_options)
    FIELD(prefopt_pg_options, struct_size)
    FIELD(prefopt_pg_options, baseline)
    FIELD(prefopt_pg_options, kl_placement)
    FIELD(prefopt_pg_options, kl_estimator)
    FIELD(prefopt_pg_options, beta)
    FIELD(prefopt_pg_options, clip_low)
    FIELD(prefopt_pg_options, clip_high)
    STRUCT(prefopt_pair_scores)
    FIELD(prefopt_pair_scores, struct_size)
    FIELD(prefopt_pair_scores, reserved)
    FIELD(prefopt_pair_scores, n)
    FIELD(prefopt_pair_scores, chosen)
    FIELD(prefopt_pair_scores, rejected)
    FIELD(prefopt_pair_scores, ref_chosen)
    FIELD(prefopt_pair_scores, ref_rejected)
    FIELD(prefopt_pair_scores, weight)
    FIELD(prefopt_pair_scores, label)
    FIELD(prefopt_pair_scores, margin)
    FIELD(prefopt_pair_scores, len_chosen)
    FIELD(prefopt_pair_scores, len_rejected)
    STRUCT(prefopt_pair_loss)
    FIELD(prefopt_pair_loss, struct_size)
    FIELD(prefopt_pair_loss, reserved)
    FIELD(prefopt_pair_loss, mean)
    FIELD(prefopt_pair_loss, each)
    FIELD(prefopt_pair_loss, grad_chosen)
    FIELD(prefopt_pair_loss, grad_rejected)
    FIELD(prefopt_pair_loss, grad_log_tie)
    STRUCT(prefopt_bt_options)
    FIELD(prefopt_bt_options, struct_size)
    FIELD(prefopt_bt_options, tie_model)
    FIELD(prefopt_bt_options, log_tie)
    FIELD(prefopt_bt_options, centre)
    STRUCT(prefopt_dpo_options)
    FIELD(prefopt_dpo_options, struct_size)
    FIELD(prefopt_dpo_options, variant)
    FIELD(prefopt_dpo_options, beta)
    FIELD(prefopt_dpo_options, label_smoothing)
    FIELD(prefopt_dpo_options, gamma)
    FIELD(prefopt_dpo_options, delta)
    FIELD(prefopt_dpo_options, tau)
    FIELD(prefopt_dpo_options, lambda)
    FIELD(prefopt_dpo_options, divergence)
    FIELD(prefopt_dpo_options, reserved)
    FIELD(prefopt_dpo_options, alpha)
    STRUCT(prefopt_token_scores)
    FIELD(prefopt_token_scores, struct_size)
    FIELD(prefopt_token_scores, reserved)
    FIELD(prefopt_token_scores, n)
    FIELD(prefopt_token_scores, offsets)
    FIELD(prefopt_token_scores, prompt_len)
    FIELD(prefopt_token_scores, reward)
    FIELD(prefopt_token_scores, logp)
    FIELD(prefopt_token_scores, ref_logp)
    FIELD(prefopt_token_scores, old_logp)
    FIELD(prefopt_token_scores, value)
    FIELD(prefopt_token_scores, old_value)
    FIELD(prefopt_token_scores, bootstrap)
    STRUCT(prefopt_ppo_options)
    FIELD(prefopt_ppo_options, struct_size)
    FIELD(prefopt_ppo_options, kl_placement)
    FIELD(prefopt_ppo_options, kl_estimator)
    FIELD(prefopt_ppo_options, aggregation)
    FIELD(prefopt_ppo_options, beta)
    FIELD(prefopt_ppo_options, clip_low)
    FIELD(prefopt_ppo_options, clip_high)
    FIELD(prefopt_ppo_options, gamma)
    FIELD(prefopt_ppo_options, lambda)
    FIELD(prefopt_ppo_options, clip_value)
    FIELD(prefopt_ppo_options, fixed_length)
    STRUCT(prefopt_value_loss)
    FIELD(prefopt_value_loss, struct_size)
    FIELD(prefopt_value_loss, reserved)
    FIELD(prefopt_value_loss, mean)
    FIELD(prefopt_value_loss, clip_fraction)
    FIELD(prefopt_value_loss, grad_value)
    STRUCT(prefopt_kto_scores)
    FIELD(prefopt_kto_scores, struct_size)
    FIELD(prefopt_kto_scores, reserved)
    FIELD(prefopt_kto_scores, n)
    FIELD(prefopt_kto_scores, logp)
    FIELD(prefopt_kto_scores, ref_logp)
    FIELD(prefopt_kto_scores, desirable)
    FIELD(prefopt_kto_scores, weight)
    STRUCT(prefopt_kto_options)
    FIELD(prefopt_kto_options, struct_size)
    FIELD(prefopt_kto_options, reserved)
    FIELD(prefopt_kto_options, beta)
    FIELD(prefopt_kto_options, kl)
    FIELD(prefopt_kto_options, lambda_desirable)
    FIELD(prefopt_kto_options, lambda_undesirable)
    STRUCT(prefopt_kto_loss)
    FIELD(prefopt_kto_loss, struct_size)
    FIELD(prefopt_kto_loss, reserved)
    FIELD(prefopt_kto_loss, mean)
    FIELD(prefopt_kto_loss, each)
    FIELD(prefopt_kto_loss, grad_logp)
    STRUCT(prefopt_ranking_scores)
    FIELD(prefopt_ranking_scores, struct_size)
    FIELD(prefopt_ranking_scores, reserved)
    FIELD(prefopt_ranking_scores, n)
    FIELD(prefopt_ranking_scores, offsets)
    FIELD(prefopt_ranking_scores, score)
    FIELD(prefopt_ranking_scores, ref_logp)
    FIELD(prefopt_ranking_scores, weight)
    FIELD(prefopt_ranking_scores, n_ranked)
    STRUCT(prefopt_pl_options)
    FIELD(prefopt_pl_options, struct_size)
    FIELD(prefopt_pl_options, reserved)
    FIELD(prefopt_pl_options, beta)
    STRUCT(prefopt_ranking_loss)
    FIELD(prefopt_ranking_loss, struct_size)
    FIELD(prefopt_ranking_loss, reserved)
    FIELD(prefopt_ranking_loss, mean)
    FIELD(prefopt_ranking_loss, each)
    FIELD(prefopt_ranking_loss, grad_score)

    /* end of loss */

    /* ---- data */
    STRUCT(prefopt_sequences)
    FIELD(prefopt_sequences, struct_size)
    FIELD(prefopt_sequences, reserved)
    FIELD(prefopt_sequences, n)
    FIELD(prefopt_sequences, tokens)
    FIELD(prefopt_sequences, offsets)
    FIELD(prefopt_sequences, prompt_len)
    STRUCT(prefopt_row)
    FIELD(prefopt_row, struct_size)
    FIELD(prefopt_row, kind)
    FIELD(prefopt_row, n_completions)
    FIELD(prefopt_row, prompt)
    FIELD(prefopt_row, prompt_len)
    FIELD(prefopt_row, completions)
    FIELD(prefopt_row, completion_offsets)
    FIELD(prefopt_row, weight)
    FIELD(prefopt_row, label)
    FIELD(prefopt_row, margin)
    FIELD(prefopt_row, logp)
    FIELD(prefopt_row, sampler_logp)
    FIELD(prefopt_row, score)
    FIELD(prefopt_row, ref_logp)
    FIELD(prefopt_row, extra)
    STRUCT(prefopt_columns)
    FIELD(prefopt_columns, struct_size)
    FIELD(prefopt_columns, reserved)
    FIELD(prefopt_columns, n_rows)
    FIELD(prefopt_columns, n_sequences)
    FIELD(prefopt_columns, first)
    FIELD(prefopt_columns, kind)
    FIELD(prefopt_columns, weight)
    FIELD(prefopt_columns, label)
    FIELD(prefopt_columns, margin)
    FIELD(prefopt_columns, logp)
    FIELD(prefopt_columns, sampler_logp)
    FIELD(prefopt_columns, score)
    FIELD(prefopt_columns, ref_logp)

    /* end of data */

    /* ---- model */
    STRUCT(prefopt_space)
    FIELD(prefopt_space, struct_size)
    FIELD(prefopt_space, eos)
    FIELD(prefopt_space, vocab)
    FIELD(prefopt_space, horizon)
    STRUCT(prefopt_parameters)
    FIELD(prefopt_parameters, struct_size)
    FIELD(prefopt_parameters, dtype)
    FIELD(prefopt_parameters, n)
    FIELD(prefopt_parameters, value)
    FIELD(prefopt_parameters, grad)
    STRUCT(prefopt_policy_callbacks)
    FIELD(prefopt_policy_callbacks, struct_size)
    FIELD(prefopt_policy_callbacks, reserved)
    FIELD(prefopt_policy_callbacks, logprobs)
    FIELD(prefopt_policy_callbacks, backward)
    FIELD(prefopt_policy_callbacks, next_logprobs)
    FIELD(prefopt_policy_callbacks, parameters)
    FIELD(prefopt_policy_callbacks, clone)
    FIELD(prefopt_policy_callbacks, destroy)
    FIELD(prefopt_policy_callbacks, updated)
    STRUCT(prefopt_reward_callbacks)
    FIELD(prefopt_reward_callbacks, struct_size)
    FIELD(prefopt_reward_callbacks, reserved)
    FIELD(prefopt_reward_callbacks, scores)
    FIELD(prefopt_reward_callbacks, backward)
    FIELD(prefopt_reward_callbacks, parameters)
    FIELD(prefopt_reward_callbacks, destroy)
    FIELD(prefopt_reward_callbacks, updated)

    /* end of model */

    /* ---- online */
    STRUCT(prefopt_sampler_options)
    FIELD(prefopt_sampler_options, struct_size)
    FIELD(prefopt_sampler_options, without_replacement)
    FIELD(prefopt_sampler_options, n)
    FIELD(prefopt_sampler_options, temperature)
    FIELD(prefopt_sampler_options, top_k)
    FIELD(prefopt_sampler_options, top_p)
    FIELD(prefopt_sampler_options, seed)
    FIELD(prefopt_sampler_options, round)
    STRUCT(prefopt_ranker_options)
    FIELD(prefopt_ranker_options, struct_size)
    FIELD(prefopt_ranker_options, rule)
    FIELD(prefopt_ranker_options, tie_rule)
    FIELD(prefopt_ranker_options, soft_labels)
    FIELD(prefopt_ranker_options, soft_scale)
    FIELD(prefopt_ranker_options, margin_floor)
    FIELD(prefopt_ranker_options, seed)
    STRUCT(prefopt_rank_counts)
    FIELD(prefopt_rank_counts, struct_size)
    FIELD(prefopt_rank_counts, reserved)
    FIELD(prefopt_rank_counts, pairs)
    FIELD(prefopt_rank_counts, duplicates)
    FIELD(prefopt_rank_counts, ties)
    FIELD(prefopt_rank_counts, below_floor)
    FIELD(prefopt_rank_counts, empty_rows)

    /* end of online */

    /* ---- train */

    /* end of train */

    /* ---- report */

    /* end of report */
};
/* clang-format on */
enum { N_ENTRIES = sizeof entries / sizeof entries[0] };

static int64_t find_struct(const char *name)
{
    for (int64_t i = 0; i < N_ENTRIES; i++)
        if (entries[i].offset < 0 && strcmp(entries[i].name, name) == 0)
            return i;
    return -1;
}

int64_t prefopt_sizeof(const char *struct_name)
{
    int64_t i = struct_name == NULL ? -1 : find_struct(struct_name);
    return i < 0 ? -1 : entries[i].size;
}

int64_t prefopt_offsetof(const char *struct_name, const char *field)
{
    int64_t i = struct_name == NULL || field == NULL ? -1 : find_struct(struct_name);
    if (i < 0)
        return -1;
    for (i++; i < N_ENTRIES && entries[i].offset >= 0; i++)
        if (strcmp(entries[i].name, field) == 0)
            return entries[i].offset;
    return -1;
}
