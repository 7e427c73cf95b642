"""prefopt: learning from preferences, the whole public interface of libprefopt over ctypes.

    import numpy as np
    import prefopt

    result = prefopt.loss_dpo(chosen, rejected, ref_chosen, ref_rejected, beta=0.1)
    result.mean, result.grad_chosen, result.grad_rejected

One file; its only need is numpy. Arrays that already have the right type (float64, int32, int64,
float32, C-contiguous) are passed as they are, without a copy; others are converted. Every failure is an
exception of a subclass of prefopt.Error with the library's own text. Options are keyword arguments with
the names of the C structs' fields; a name that the struct lacks is a TypeError.

The C functions are all in prefopt.lib (prefopt.lib.prefopt_kl_exact ...), the structs by name in
prefopt.structs; what is below them makes them pleasant. The library is found through the environment
variable PREFOPT_LIBRARY, else by the system's loader.
"""

import contextlib
import ctypes
import ctypes.util
import os
import threading
import types

import numpy as np

__all__ = ["Error", "Context", "Dataset", "Tokenizer", "Policy", "Reference", "Reward", "Trainer",
           "sample", "rank", "best_of_n", "strengths", "lib", "structs"]

# ---------------------------------------------------------------- declarations
# A line that starts with a space continues the one before.
# Structs: name, then fields as "type name". Types: i32 u32 i64 u64 f64 ptr.

_STRUCTS = """
prefopt_context_options: u32 struct_size, i32 threads, i64 byte_budget, ptr allocate, ptr
    release, ptr allocator_payload, ptr log, ptr log_payload
prefopt_pair_scores: u32 struct_size, u32 reserved, i64 n, ptr chosen, ptr rejected, ptr
    ref_chosen, ptr ref_rejected, ptr weight, ptr label, ptr margin, ptr len_chosen, ptr
    len_rejected
prefopt_pair_loss: u32 struct_size, u32 reserved, f64 mean, ptr each, ptr grad_chosen, ptr
    grad_rejected, f64 grad_log_tie
prefopt_bt_options: u32 struct_size, i32 tie_model, f64 log_tie, f64 centre
prefopt_dpo_options: u32 struct_size, i32 variant, f64 beta, f64 label_smoothing, f64 gamma, f64
    delta, f64 tau, f64 lambda, i32 divergence, u32 reserved, f64 alpha
prefopt_kto_scores: u32 struct_size, u32 reserved, i64 n, ptr logp, ptr ref_logp, ptr desirable,
    ptr weight
prefopt_kto_options: u32 struct_size, u32 reserved, f64 beta, f64 kl, f64 lambda_desirable, f64
    lambda_undesirable
prefopt_kto_loss: u32 struct_size, u32 reserved, f64 mean, ptr each, ptr grad_logp
prefopt_ranking_scores: u32 struct_size, u32 reserved, i64 n, ptr offsets, ptr score, ptr
    ref_logp, ptr weight, ptr n_ranked
prefopt_pl_options: u32 struct_size, u32 reserved, f64 beta
prefopt_ranking_loss: u32 struct_size, u32 reserved, f64 mean, ptr each, ptr grad_score
prefopt_group_scores: u32 struct_size, u32 reserved, i64 n_groups, i64 group_size, ptr reward,
    ptr logp, ptr ref_logp, ptr old_logp
prefopt_pg_options: u32 struct_size, i32 baseline, i32 kl_placement, i32 kl_estimator, f64 beta,
    f64 clip_low, f64 clip_high
prefopt_pg_loss: u32 struct_size, u32 reserved, f64 mean, f64 kl, f64 clip_fraction, ptr
    grad_logp
prefopt_token_scores: u32 struct_size, u32 reserved, i64 n, ptr offsets, ptr prompt_len, ptr
    reward, ptr logp, ptr ref_logp, ptr old_logp, ptr value, ptr old_value, ptr bootstrap
prefopt_ppo_options: u32 struct_size, i32 kl_placement, i32 kl_estimator, i32 aggregation, f64
    beta, f64 clip_low, f64 clip_high, f64 gamma, f64 lambda, f64 clip_value, i64 fixed_length
prefopt_value_loss: u32 struct_size, u32 reserved, f64 mean, f64 clip_fraction, ptr grad_value
prefopt_sequences: u32 struct_size, u32 reserved, i64 n, ptr tokens, ptr offsets, ptr prompt_len
prefopt_row: u32 struct_size, i32 kind, i64 n_completions, ptr prompt, i64 prompt_len, ptr
    completions, ptr completion_offsets, f64 weight, f64 label, f64 margin, ptr logp, ptr
    sampler_logp, ptr score, ptr ref_logp, ptr extra, u64 ref_key
prefopt_columns: u32 struct_size, u32 reserved, i64 n_rows, i64 n_sequences, ptr first, ptr
    kind, ptr weight, ptr label, ptr margin, ptr logp, ptr sampler_logp, ptr score, ptr
    ref_logp, ptr ref_key
prefopt_text_options: u32 struct_size, i32 eos, i64 max_prompt, i64 max_completion, i64
    max_tokens, i64 max_rows, i32 too_long, i32 prompt_keep
prefopt_text_counts: u32 struct_size, u32 reserved, i64 lines, i64 rows, i64 too_long, i64 same,
    i64 no_longer_differ, i64 implicit_prompts, i64 moved, i64 boundary_mismatches, i64
    prompts_cut, i64 completions_cut, i64 prompt_tokens_cut, i64 completion_tokens_cut, i64
    first_too_long, i64 first_same, i64 first_no_longer_differ, i64 first_moved, i64
    first_boundary_mismatch
prefopt_space: u32 struct_size, i32 eos, i64 vocab, i64 horizon
prefopt_transformer_config: u32 struct_size, i32 architecture, i32 activation, i32
    parallel_residual, i32 tied, i32 eos, i64 vocab, i64 n_layers, i64 width, i64 n_heads, i64
    ff_width, i64 max_positions, f64 rotary_fraction, f64 rotary_base, f64 norm_epsilon, f64
    init_scale
prefopt_tensor: u32 struct_size, i32 n_dims, ptr name, i64 offset, i64 rows, i64 columns
prefopt_parameters: u32 struct_size, i32 dtype, i64 n, ptr value, ptr grad
prefopt_policy_callbacks: u32 struct_size, u32 reserved, ptr logprobs, ptr backward, ptr
    next_logprobs, ptr parameters, ptr clone, ptr destroy, ptr updated
prefopt_reward_callbacks: u32 struct_size, u32 reserved, ptr scores, ptr backward, ptr
    parameters, ptr destroy, ptr updated
prefopt_sampler_options: u32 struct_size, i32 without_replacement, i64 n, f64 temperature, i64
    top_k, f64 top_p, u64 seed, u64 round, f64 min_p, i64 max_tokens, i64 n_stop, ptr stop, ptr
    token, ptr token_payload
prefopt_ranker_options: u32 struct_size, i32 rule, i32 tie_rule, i32 soft_labels, f64
    soft_scale, f64 margin_floor, u64 seed
prefopt_rank_counts: u32 struct_size, u32 reserved, i64 pairs, i64 duplicates, i64 ties, i64
    below_floor, i64 empty_rows, f64 mean_score
prefopt_comparisons: u32 struct_size, u32 reserved, i64 n_items, i64 n, ptr first, ptr second,
    ptr weight, ptr label
prefopt_rankings: u32 struct_size, u32 reserved, i64 n_items, i64 n, ptr offsets, ptr items, ptr
    weight
prefopt_strengths_options: u32 struct_size, i32 tie_model, f64 ridge, i64 reference, i32
    covariance, i32 replicates, u64 seed, f64 tolerance, ptr item_names
prefopt_strengths_summary: u32 struct_size, i32 tie_model, i64 n_items, i64 iterations, f64
    log_likelihood, f64 log_tie, f64 log_tie_std_error, f64 grad_norm, i64 replicates, i64
    replicates_unbounded
prefopt_progress: u32 struct_size, u32 reserved, i64 step, i64 n_steps, f64 loss, f64 accuracy,
    f64 margin, f64 kl, f64 reward, f64 grad_norm, f64 learning_rate, f64 steps_per_second, f64
    seconds_left, f64 chosen_score, f64 rejected_score, f64 chosen_logp, f64 rejected_logp, i64
    tokens, f64 eval_loss, f64 eval_accuracy, f64 eval_margin, f64 best_eval_loss, i64 eval_step,
    i64 best_step, i32 stopped_early, u32 reserved2, i64 round, i64 pairs, i64 ties, i64
    duplicates, f64 ended, f64 score_mean, f64 score_sd, f64 clip_fraction, f64 seconds_sampling,
    f64 seconds_scoring, f64 seconds_training
prefopt_collective: u32 struct_size, u32 reserved, i64 rank, i64 size, ptr payload, ptr sum_f32,
    ptr sum_f64, ptr broadcast
prefopt_train_options: u32 struct_size, i32 optimiser, i32 schedule, i32 decay_vectors, f64
    learning_rate, f64 final_fraction, i64 warmup_steps, i64 schedule_steps, f64 beta1, f64
    beta2, f64 epsilon, f64 momentum, f64 weight_decay, f64 clip_norm, i64 batch, u64 seed, f64
    ridge, f64 score_ridge, f64 tolerance, i64 max_iterations, ptr progress, ptr
    progress_payload, i64 progress_every, i64 micro_batch, ptr
    collective
prefopt_evaluation_options: u32 struct_size, i32 keep_best, i64 every, i64 patience, f64 min_delta
prefopt_save_options: u32 struct_size, i32 keep_best, i64 keep
prefopt_round_options: u32 struct_size, i32 reward_scale, i64 prompts, i64 steps, i64 refresh, f64
    missing_end_penalty, f64 reward_clip
prefopt_coverage: u32 struct_size, u32 reserved, i64 n_prompts, i64 n_completions, i64
    n_uncovered, f64 uncovered_ref_mass, f64 uncovered_policy_mass, f64
    uncovered_soft_optimal_mass, f64 max_ratio, f64 chi_square, f64 worst_policy_mass, i32
    at_risk, u32 reserved2
prefopt_displacement: u32 struct_size, u32 reserved, i64 n_pairs, f64 chosen, f64 rejected, f64
    chosen_fell, f64 both_fell, f64 worst_chosen, i64 worst_pair, f64 unseen_mass_before, f64
    unseen_mass_after, f64 max_unseen_log_ratio
prefopt_kl_summary: u32 struct_size, u32 reserved, f64 reverse, f64 forward, f64 k1, f64
    k1_std_error, f64 k2, f64 k2_std_error, f64 k3, f64 k3_std_error, i64 n_samples
prefopt_objective: u32 struct_size, u32 reserved, f64 j, f64 reward, f64 kl, f64 optimum, f64
    regret
prefopt_equivalence: u32 struct_size, u32 reserved, f64 total_variation, f64
    max_total_variation, f64 kl, f64 loss_reward, f64 loss_policy, f64 loss_difference
prefopt_preference_fit: u32 struct_size, u32 reserved, i64 n_pairs, f64 log_likelihood, f64
    std_error, f64 accuracy, f64 likelihood
prefopt_fragility: u32 struct_size, i32 found, i64 leader, i64 rival, f64 n_removed, f64 share,
    f64 gap_before, f64 gap_after, i64 n_refits
"""

# Functions: result, name, argument types.
_FUNCTIONS = """
u32 prefopt_version
str prefopt_version_string
str prefopt_status_name i32
str prefopt_last_error
i64 prefopt_sizeof str
i64 prefopt_offsetof str str
i32 prefopt_context_options_init ptr u32
i32 prefopt_context_create ptr ptr
void prefopt_context_destroy ptr
i32 prefopt_context_threads ptr
i32 prefopt_random_uniform u64 u64 u64 i64 ptr
i32 prefopt_random_normal u64 u64 u64 i64 ptr
f64 prefopt_sigmoid f64
f64 prefopt_log_sigmoid f64
f64 prefopt_softplus f64
f64 prefopt_log1mexp f64
f64 prefopt_log_add_exp f64 f64
f64 prefopt_log_sum_exp i64 ptr
i32 prefopt_bt_options_init ptr u32
i32 prefopt_loss_bradley_terry ptr ptr ptr
i32 prefopt_dpo_options_init ptr u32
i32 prefopt_loss_dpo ptr ptr ptr
i32 prefopt_kto_options_init ptr u32
i32 prefopt_loss_kto ptr ptr ptr
i32 prefopt_pl_options_init ptr u32
i32 prefopt_loss_plackett_luce ptr ptr ptr
i32 prefopt_soft_optimal i64 ptr ptr f64 ptr ptr
i32 prefopt_kl_exact i32 i64 ptr ptr ptr ptr
i32 prefopt_kl_estimate i32 i32 i32 i64 ptr ptr ptr ptr ptr
i32 prefopt_kl_score_weights i32 i32 i32 i64 ptr ptr ptr
i32 prefopt_logprobs_from_logits i64 i64 ptr i64 ptr f64 ptr
i32 prefopt_logprobs_backward i64 i64 ptr i64 ptr f64 ptr ptr
i32 prefopt_linear_logprobs ptr i64 i64 i64 ptr ptr ptr ptr
i32 prefopt_linear_logprobs_backward ptr i64 i64 i64 ptr ptr ptr ptr ptr ptr
i32 prefopt_pg_options_init ptr u32
i32 prefopt_advantages ptr ptr ptr
i32 prefopt_loss_policy_gradient ptr ptr ptr ptr
i32 prefopt_ppo_options_init ptr u32
i32 prefopt_gae ptr ptr ptr ptr
i32 prefopt_loss_ppo_tokens ptr ptr ptr ptr
i32 prefopt_loss_value ptr ptr ptr ptr
i32 prefopt_row_init ptr u32
i32 prefopt_dataset_create ptr ptr
void prefopt_dataset_destroy ptr
i32 prefopt_dataset_append ptr ptr
i32 prefopt_dataset_append_pair ptr ptr i64 ptr i64 ptr i64 f64 f64 f64
i64 prefopt_dataset_size ptr
i32 prefopt_dataset_row ptr i64 ptr
i32 prefopt_dataset_columns ptr ptr
i32 prefopt_dataset_sequences ptr ptr
i32 prefopt_dataset_set_column ptr i32 ptr
i32 prefopt_dataset_select ptr ptr ptr i64
i32 prefopt_shuffle_order u64 u64 i64 ptr
i32 prefopt_dataset_split ptr ptr ptr f64 u64 i32
u64 prefopt_dataset_hash ptr
i32 prefopt_dataset_read_jsonl ptr ptr str
i32 prefopt_dataset_write_jsonl ptr str
i32 prefopt_tokenizer_load ptr ptr str
void prefopt_tokenizer_destroy ptr
i64 prefopt_tokenizer_size ptr
i32 prefopt_tokenizer_encode ptr str i64 ptr i64 ptr
i32 prefopt_tokenizer_decode ptr ptr i64 ptr i64 ptr
i32 prefopt_tokenizer_token ptr str i64 ptr
str prefopt_tokenizer_text ptr i32 ptr
i32 prefopt_tokenizer_is_special ptr i32
i32 prefopt_text_options_init ptr u32
i32 prefopt_text_read ptr ptr ptr str ptr ptr
i32 prefopt_transformer_config_init ptr u32
i32 prefopt_policy_create_transformer ptr ptr ptr u64
i32 prefopt_policy_transformer_config ptr ptr
i32 prefopt_policy_tensor ptr i64 ptr
i32 prefopt_policy_set_recompute ptr i32
i32 prefopt_policy_set_transitions ptr ptr
i32 prefopt_reward_from_policy ptr ptr
i32 prefopt_reward_tensor ptr i64 ptr
i32 prefopt_reward_set_recompute ptr i32
i32 prefopt_policy_load ptr ptr str
i32 prefopt_policy_save ptr str
i32 prefopt_policy_save_as ptr str i32
i32 prefopt_reward_load ptr ptr str
i32 prefopt_reward_save ptr str
i32 prefopt_reward_save_as ptr str i32
i32 prefopt_policy_create_custom ptr ptr ptr ptr ptr
i32 prefopt_policy_create_tabular ptr ptr ptr ptr
i32 prefopt_policy_set_logprobs ptr ptr ptr
i32 prefopt_policy_create_loglinear ptr ptr ptr ptr i64 ptr ptr
void prefopt_policy_destroy ptr
i32 prefopt_policy_logprobs ptr ptr ptr ptr
i32 prefopt_policy_backward ptr ptr ptr
i32 prefopt_policy_next_logprobs ptr ptr ptr
i32 prefopt_policy_parameters ptr ptr
i32 prefopt_policy_updated ptr
i32 prefopt_policy_zero_grad ptr
i32 prefopt_policy_space ptr ptr
i32 prefopt_policy_hash ptr ptr
i32 prefopt_policy_enumerate ptr ptr ptr i64
i32 prefopt_space_count ptr ptr
i32 prefopt_reference_freeze ptr ptr
i32 prefopt_reference_create_uniform ptr ptr ptr
i32 prefopt_reference_create_fixed ptr ptr ptr ptr
i32 prefopt_reference_from_dataset ptr ptr
void prefopt_reference_destroy ptr
i32 prefopt_reference_logprobs ptr ptr ptr
i32 prefopt_reference_annotate ptr ptr ptr ptr
i32 prefopt_reference_hash ptr ptr
i32 prefopt_reward_create_custom ptr ptr ptr ptr
i32 prefopt_reward_create_tabular ptr ptr ptr
i32 prefopt_reward_create_linear ptr ptr ptr i64 ptr
i32 prefopt_reward_create_implicit ptr ptr ptr f64
i32 prefopt_reward_create_local ptr ptr
void prefopt_reward_destroy ptr
i32 prefopt_reward_scores ptr ptr ptr
i32 prefopt_reward_backward ptr ptr ptr
i32 prefopt_reward_parameters ptr ptr
i32 prefopt_reward_updated ptr
i32 prefopt_reward_zero_grad ptr
i32 prefopt_reward_hash ptr ptr
i32 prefopt_sampler_options_init ptr u32
i32 prefopt_sample ptr ptr ptr ptr
i32 prefopt_ranker_options_init ptr u32
i32 prefopt_rank ptr ptr ptr ptr ptr
i32 prefopt_reward_annotate ptr ptr
i32 prefopt_best_of_n i64 i64 ptr ptr ptr ptr ptr ptr
i32 prefopt_strengths_options_init ptr u32
i32 prefopt_strengths_fit ptr ptr ptr ptr ptr
void prefopt_strengths_destroy ptr
i32 prefopt_strengths_values ptr ptr ptr
i32 prefopt_strengths_covariance ptr ptr
i32 prefopt_strengths_summarise ptr ptr
i32 prefopt_train_options_init ptr u32
i32 prefopt_collective_annotate ptr ptr ptr ptr ptr
i32 prefopt_trainer_create_mle ptr ptr ptr ptr
i32 prefopt_trainer_create_reward ptr ptr ptr ptr ptr
i32 prefopt_trainer_create_dpo ptr ptr ptr ptr ptr ptr
i32 prefopt_round_options_init ptr u32
i32 prefopt_trainer_create_policy_gradient ptr ptr ptr ptr ptr ptr ptr ptr ptr
i32 prefopt_trainer_create_soft_rl ptr ptr ptr ptr ptr f64 ptr
i32 prefopt_trainer_create_online_dpo ptr ptr ptr ptr ptr ptr ptr ptr ptr ptr
void prefopt_trainer_destroy ptr
i32 prefopt_trainer_run ptr i64 ptr
i32 prefopt_trainer_step ptr ptr
i32 prefopt_evaluation_options_init ptr u32
i32 prefopt_trainer_set_evaluation ptr ptr ptr ptr
i32 prefopt_trainer_restore_best ptr
i32 prefopt_trainer_fit ptr ptr
i32 prefopt_trainer_loss ptr ptr
i32 prefopt_save_options_init ptr u32
i32 prefopt_trainer_save ptr str ptr
i32 prefopt_trainer_restore ptr str
i32 prefopt_checkpoint_latest str ptr ptr i64 ptr
i32 prefopt_trainer_log_tie ptr ptr
i32 prefopt_report_coverage ptr ptr ptr ptr ptr ptr f64
i32 prefopt_report_displacement ptr ptr ptr ptr
i32 prefopt_report_kl ptr ptr ptr ptr i64 u64
i32 prefopt_report_objective ptr ptr ptr ptr ptr f64
i32 prefopt_report_equivalence ptr ptr i64 ptr ptr ptr ptr f64
i32 prefopt_report_preference_fit ptr ptr ptr
i32 prefopt_report_best_of_n ptr ptr ptr ptr i64 ptr ptr ptr
i32 prefopt_report_fragility ptr ptr ptr ptr ptr f64
"""

_CONSTANTS = """
PREFOPT_OK 0
PREFOPT_STOPPED 1
PREFOPT_ERR_ARGUMENT -1
PREFOPT_ERR_MEMORY -2
PREFOPT_ERR_IO -3
PREFOPT_ERR_FORMAT -4
PREFOPT_ERR_NUMERIC -5
PREFOPT_ERR_UNSUPPORTED -6
PREFOPT_ERR_STATE -7
PREFOPT_ERR_VERSION -8
PREFOPT_ERR_CALLBACK -9
PREFOPT_ERR_UNBOUNDED -10
PREFOPT_LOG_DEBUG 0
PREFOPT_LOG_INFO 1
PREFOPT_LOG_WARNING 2
PREFOPT_TIE_NONE 0
PREFOPT_TIE_DAVIDSON 1
PREFOPT_TIE_RAO_KUPPER 2
PREFOPT_DPO_SIGMOID 0
PREFOPT_DPO_HINGE 1
PREFOPT_DPO_IPO 2
PREFOPT_DPO_IPO_SUM 3
PREFOPT_DPO_ROBUST 4
PREFOPT_DPO_EXO 5
PREFOPT_DPO_NCA 6
PREFOPT_DPO_BCO 7
PREFOPT_DPO_SPPO 8
PREFOPT_DPO_AOT 9
PREFOPT_DPO_AOT_UNPAIRED 10
PREFOPT_DPO_APO_ZERO 11
PREFOPT_DPO_APO_DOWN 12
PREFOPT_DPO_DISCOPOP 13
PREFOPT_DPO_SIGMOID_NORM 14
PREFOPT_DPO_SIMPO 15
PREFOPT_DPO_CPO 16
PREFOPT_DPO_ORPO 17
PREFOPT_DPO_DPOP 18
PREFOPT_DIVERGENCE_REVERSE_KL 0
PREFOPT_DIVERGENCE_FORWARD_KL 1
PREFOPT_DIVERGENCE_JENSEN_SHANNON 2
PREFOPT_DIVERGENCE_ALPHA 3
PREFOPT_KL_REVERSE 0
PREFOPT_KL_FORWARD 1
PREFOPT_KL_K1 1
PREFOPT_KL_K2 2
PREFOPT_KL_K3 3
PREFOPT_FROM_POLICY 0
PREFOPT_FROM_REFERENCE 1
PREFOPT_BASELINE_NONE 0
PREFOPT_BASELINE_MEAN 1
PREFOPT_BASELINE_LEAVE_ONE_OUT 2
PREFOPT_BASELINE_GROUP_NORM 3
PREFOPT_KL_IN_REWARD 0
PREFOPT_KL_IN_LOSS 1
PREFOPT_TOKENS_MEAN 0
PREFOPT_TOKENS_SEQUENCE_MEAN 1
PREFOPT_TOKENS_FIXED_LENGTH 2
PREFOPT_ROW_PROMPT 0
PREFOPT_ROW_COMPLETIONS 1
PREFOPT_ROW_PAIR 2
PREFOPT_ROW_RANKING 3
PREFOPT_COLUMN_LOGP 0
PREFOPT_COLUMN_SAMPLER_LOGP 1
PREFOPT_COLUMN_SCORE 2
PREFOPT_COLUMN_REF_LOGP 3
PREFOPT_LONG_CUT 0
PREFOPT_LONG_SKIP 1
PREFOPT_LONG_FAIL 2
PREFOPT_KEEP_END 0
PREFOPT_KEEP_START 1
PREFOPT_F64 0
PREFOPT_F32 1
PREFOPT_F16 2
PREFOPT_BF16 3
PREFOPT_GPT_NEOX 0
PREFOPT_GELU 0
PREFOPT_GELU_TANH 1
PREFOPT_PAIR_TOP_BOTTOM 0
PREFOPT_PAIR_BEST_AGAINST_EACH 1
PREFOPT_PAIR_ALL 2
PREFOPT_PAIR_BEST_MEAN_2SD 3
PREFOPT_PAIR_RANDOM 4
PREFOPT_PAIR_BEST_RANDOM 5
PREFOPT_TIES_DROP 0
PREFOPT_TIES_FIRST 1
PREFOPT_TIES_HALF 2
PREFOPT_COVARIANCE_INFORMATION 0
PREFOPT_COVARIANCE_SANDWICH 1
PREFOPT_COVARIANCE_BOOTSTRAP 2
PREFOPT_ADAMW 0
PREFOPT_SGD 1
PREFOPT_CONSTANT 0
PREFOPT_LINEAR 1
PREFOPT_COSINE 2
PREFOPT_REWARD_AS_IS 0
PREFOPT_REWARD_STANDARDISE 1
PREFOPT_REWARD_RUNNING 2
"""

_TYPES = {"i32": ctypes.c_int32, "u32": ctypes.c_uint32, "i64": ctypes.c_int64, "u64": ctypes.c_uint64,
          "f64": ctypes.c_double, "ptr": ctypes.c_void_p, "str": ctypes.c_char_p, "void": None}


def _lines(text):
    return [line for line in text.replace("\n    ", " ").split("\n") if line]


def _load():
    path = os.environ.get("PREFOPT_LIBRARY") or ctypes.util.find_library("prefopt") or "libprefopt.so.0"
    library = ctypes.CDLL(path)
    for line in _lines(_FUNCTIONS):
        result, name, *arguments = line.split()
        function = getattr(library, name)
        function.restype = _TYPES[result]
        function.argtypes = [_TYPES[a] for a in arguments]
    return library


lib = _load()
structs = types.SimpleNamespace()
for _line in _lines(_STRUCTS):
    _name, _rest = _line.split(":")
    _fields = [tuple(reversed(field.split())) for field in _rest.split(",")]
    setattr(structs, _name, type(_name, (ctypes.Structure,),
                                 {"_fields_": [(n, _TYPES[t]) for n, t in _fields]}))
for _line in _lines(_CONSTANTS):
    _name, _value = _line.split()
    globals()[_name.removeprefix("PREFOPT_")] = int(_value)


# ---------------------------------------------------------------- errors
class Error(Exception):
    """A call failed; status is its code."""

    status = 0


def _error_class(name, status):
    cls = type(name, (Error,), {"status": status, "__doc__": f"PREFOPT_ERR_{name[:-5].upper()}"})
    globals()[name] = cls
    __all__.append(name)
    return cls


_ERRORS = {status: _error_class(name, status) for name, status in [
    ("ArgumentError", -1), ("MemoryExhaustedError", -2), ("IoError", -3), ("FormatError", -4),
    ("NumericError", -5), ("UnsupportedError", -6), ("StateError", -7), ("VersionError", -8),
    ("CallbackError", -9), ("UnboundedError", -10)]}

_thread = threading.local()  # .raised: what a Python callback raised during the call under way


def check(status):
    """Raises for a negative status; returns it otherwise (0, or 1: stopped)."""
    cause, _thread.raised = getattr(_thread, "raised", None), None
    if status < 0:
        if cause is not None and not isinstance(cause, Exception):
            raise cause  # KeyboardInterrupt, SystemExit: no failure of the call
        raise _ERRORS.get(status, Error)(lib.prefopt_last_error().decode()) from cause
    return status


if lib.prefopt_version() >> 16 != 0:
    raise ImportError(f"prefopt.py is for libprefopt 0.x, found {lib.prefopt_version_string().decode()}")


# ---------------------------------------------------------------- arrays and structs
def _array(values, dtype, what, size=None):
    """A C-contiguous array of that type, the caller's own where it already is one; None stays."""
    if values is None:
        return None
    given = np.asarray(values)
    if given.dtype.kind == "c":
        raise TypeError(f"{what} is complex, expected real numbers")
    with np.errstate(invalid="ignore"):
        array = np.ascontiguousarray(given, dtype=dtype)
    if array.dtype.kind == "i" and given.dtype != array.dtype and not (array == given).all():
        raise ValueError(f"{what} has {given[array != given].flat[0]!r}, which is no {array.dtype}")
    if size is not None and array.size != size:
        raise ValueError(f"{what} has {array.size} elements, expected {size}")
    return array


def _f64(values, what, size=None):
    return _array(values, np.float64, what, size)


def _pointer(array):
    return None if array is None else array.ctypes.data


def _struct(name, **fields):
    """A struct with struct_size set. Arrays become pointers and are kept alive by the struct."""
    value = getattr(structs, name)()
    value.struct_size = ctypes.sizeof(value)
    value._keep = []
    known = {field for field, _ in value._fields_}
    for field, content in fields.items():
        if field not in known:
            raise TypeError(f"{name} has no field {field}; it has {', '.join(sorted(known))}")
        if isinstance(content, np.ndarray):
            value._keep.append(content)
            content = _pointer(content)
        setattr(value, field, content)
    return value


def _options(name, keywords):
    """An option struct with its defaults, then the caller's fields."""
    value = getattr(structs, name)()
    check(getattr(lib, name + "_init")(ctypes.byref(value), ctypes.sizeof(value)))
    known = {field for field, _ in value._fields_} - {"struct_size", "reserved"}
    for field, content in keywords.items():
        field = field.rstrip("_")  # lambda is a word of Python's: lambda_
        if field not in known:
            raise TypeError(f"unexpected option {field}; expected {', '.join(sorted(known))}")
        setattr(value, field, content)
    return value


def _result(struct, **arrays):
    """The numbers of an out struct and the arrays it was given, by name."""
    fields = {n: getattr(struct, n) for n, t in struct._fields_
              if t is not ctypes.c_void_p and n != "struct_size" and not n.startswith("reserved")}
    return types.SimpleNamespace(**fields, **arrays)


def _ref(struct):
    return None if struct is None else ctypes.byref(struct)


# ---------------------------------------------------------------- losses
def _pair_loss(function, options, chosen, rejected, arrays, gradients):
    chosen = _f64(chosen, "chosen")
    n = chosen.size
    lengths = {k: _array(arrays.pop(k), np.int64, k, n) for k in ("len_chosen", "len_rejected")}
    arrays = {k: _f64(v, k, n) for k, v in arrays.items()}
    scores = _struct("prefopt_pair_scores", n=n, chosen=chosen, rejected=_f64(rejected, "rejected", n),
                     **{k: v for k, v in {**arrays, **lengths}.items() if v is not None})
    each = np.empty(n)
    grads = {k: np.empty(n) for k in ("grad_chosen", "grad_rejected")} if gradients else {}
    out = _struct("prefopt_pair_loss", each=each, **grads)
    check(function(_ref(options), _ref(scores), _ref(out)))
    return _result(out, each=each, **grads)


def loss_dpo(chosen, rejected, ref_chosen=None, ref_rejected=None, *, weight=None, label=None,
             margin=None, len_chosen=None, len_rejected=None, gradients=True, **options):
    """The DPO family: mean, each, grad_chosen, grad_rejected. Options as in prefopt_dpo_options."""
    return _pair_loss(lib.prefopt_loss_dpo, _options("prefopt_dpo_options", options), chosen, rejected,
                      dict(ref_chosen=ref_chosen, ref_rejected=ref_rejected, weight=weight, label=label,
                           margin=margin, len_chosen=len_chosen, len_rejected=len_rejected), gradients)


def loss_bradley_terry(chosen, rejected, *, weight=None, label=None, margin=None, gradients=True,
                       **options):
    """Bradley-Terry, also with ties: mean, each, gradients, grad_log_tie."""
    return _pair_loss(lib.prefopt_loss_bradley_terry, _options("prefopt_bt_options", options), chosen,
                      rejected, dict(weight=weight, label=label, margin=margin, len_chosen=None,
                                     len_rejected=None), gradients)


def loss_kto(logp, desirable, ref_logp=None, *, weight=None, **options):
    """KTO on unpaired examples: mean, each, grad_logp."""
    logp = _f64(logp, "logp")
    n = logp.size
    scores = _struct("prefopt_kto_scores", n=n, logp=logp, ref_logp=_f64(ref_logp, "ref_logp", n),
                     desirable=_array(desirable, np.int32, "desirable", n),
                     weight=_f64(weight, "weight", n))
    each, grad = np.empty(n), np.empty(n)
    out = _struct("prefopt_kto_loss", each=each, grad_logp=grad)
    check(lib.prefopt_loss_kto(_ref(_options("prefopt_kto_options", options)), _ref(scores), _ref(out)))
    return _result(out, each=each, grad_logp=grad)


def loss_plackett_luce(offsets, score, ref_logp=None, *, weight=None, n_ranked=None, **options):
    """Plackett-Luce of rankings laid end to end, best first: mean, each, grad_score."""
    offsets = _array(offsets, np.int64, "offsets")
    n, size = offsets.size - 1, int(offsets[-1])
    scores = _struct("prefopt_ranking_scores", n=n, offsets=offsets, score=_f64(score, "score", size),
                     ref_logp=_f64(ref_logp, "ref_logp", size), weight=_f64(weight, "weight", n),
                     n_ranked=_array(n_ranked, np.int64, "n_ranked", n))
    each, grad = np.empty(n), np.empty(size)
    out = _struct("prefopt_ranking_loss", each=each, grad_score=grad)
    check(lib.prefopt_loss_plackett_luce(_ref(_options("prefopt_pl_options", options)), _ref(scores),
                                         _ref(out)))
    return _result(out, each=each, grad_score=grad)


def soft_optimal(ref_logp, reward, beta):
    """softmax(ref_logp + reward / beta) as log-probabilities, and log Z."""
    ref_logp = _f64(ref_logp, "ref_logp")
    reward = _f64(reward, "reward", ref_logp.size)
    logp, log_z = np.empty(ref_logp.size), ctypes.c_double()
    check(lib.prefopt_soft_optimal(ref_logp.size, _pointer(ref_logp), _pointer(reward), beta,
                                   _pointer(logp), ctypes.addressof(log_z)))
    return logp, log_z.value


def _groups(reward, logp, ref_logp, old_logp):
    reward = _f64(reward, "reward")
    if reward.ndim != 2:
        raise ValueError(f"reward has {reward.ndim} dimensions, expected 2: groups, completions")
    size = reward.size
    return reward.shape, _struct("prefopt_group_scores", n_groups=reward.shape[0],
                                 group_size=reward.shape[1], reward=reward,
                                 logp=_f64(logp, "logp", size), ref_logp=_f64(ref_logp, "ref_logp", size),
                                 old_logp=_f64(old_logp, "old_logp", size))


def advantages(reward, logp, ref_logp=None, old_logp=None, **options):
    """Advantages [groups, completions]. Options as in prefopt_pg_options."""
    shape, scores = _groups(reward, logp, ref_logp, old_logp)
    out = np.empty(shape)
    check(lib.prefopt_advantages(_ref(_options("prefopt_pg_options", options)), _ref(scores),
                                 _pointer(out)))
    return out


def loss_policy_gradient(reward, logp, advantage, ref_logp=None, old_logp=None, **options):
    """The policy-gradient surrogate: mean, kl, clip_fraction, grad_logp."""
    shape, scores = _groups(reward, logp, ref_logp, old_logp)
    advantage, grad = _f64(advantage, "advantage", shape[0] * shape[1]), np.empty(shape)
    out = _struct("prefopt_pg_loss", grad_logp=grad)
    check(lib.prefopt_loss_policy_gradient(_ref(_options("prefopt_pg_options", options)), _ref(scores),
                                           _pointer(advantage), _ref(out)))
    return _result(out, grad_logp=grad)


def _tokens(offsets, by_token, by_sequence):
    offsets = _array(offsets, np.int64, "offsets")
    n, size = offsets.size - 1, int(offsets[-1] - offsets[0])
    fields = {k: _f64(v, k, size) for k, v in by_token.items()}
    prompt_len = by_sequence.pop("prompt_len")
    fields.update({k: _f64(v, k, n) for k, v in by_sequence.items()})
    return size, _struct("prefopt_token_scores", n=n, offsets=offsets,
                         prompt_len=_array(prompt_len, np.int64, "prompt_len", n), **fields)


def gae(offsets, reward, value, *, logp=None, ref_logp=None, bootstrap=None, prompt_len=None, **options):
    """Generalised advantage estimates: (advantage, returns), one a token."""
    size, scores = _tokens(offsets, dict(reward=reward, value=value, logp=logp, ref_logp=ref_logp),
                           dict(bootstrap=bootstrap, prompt_len=prompt_len))
    advantage, returns = np.empty(size), np.empty(size)
    check(lib.prefopt_gae(_ref(_options("prefopt_ppo_options", options)), _ref(scores),
                          _pointer(advantage), _pointer(returns)))
    return advantage, returns


def loss_ppo_tokens(offsets, logp, advantage, *, old_logp=None, ref_logp=None, prompt_len=None, **options):
    """PPO's clipped surrogate by token: mean, kl, clip_fraction, grad_logp."""
    size, scores = _tokens(offsets, dict(logp=logp, old_logp=old_logp, ref_logp=ref_logp),
                           dict(prompt_len=prompt_len))
    advantage, grad = _f64(advantage, "advantage", size), np.empty(size)
    out = _struct("prefopt_pg_loss", grad_logp=grad)
    check(lib.prefopt_loss_ppo_tokens(_ref(_options("prefopt_ppo_options", options)), _ref(scores),
                                      _pointer(advantage), _ref(out)))
    return _result(out, grad_logp=grad)


def loss_value(offsets, value, returns, *, old_value=None, prompt_len=None, **options):
    """The value function's squared error: mean, clip_fraction, grad_value."""
    size, scores = _tokens(offsets, dict(value=value, old_value=old_value), dict(prompt_len=prompt_len))
    returns, grad = _f64(returns, "returns", size), np.empty(size)
    out = _struct("prefopt_value_loss", grad_value=grad)
    check(lib.prefopt_loss_value(_ref(_options("prefopt_ppo_options", options)), _ref(scores),
                                 _pointer(returns), _ref(out)))
    return _result(out, grad_value=grad)


# ---------------------------------------------------------------- KL, logits
def kl_exact(direction, logp, logq):
    """(KL, its gradient over the logits of p). direction: KL_REVERSE or KL_FORWARD."""
    logp = _f64(logp, "logp")
    logq, grad, kl = _f64(logq, "logq", logp.size), np.empty(logp.size), ctypes.c_double()
    check(lib.prefopt_kl_exact(direction, logp.size, _pointer(logp), _pointer(logq),
                               ctypes.addressof(kl), _pointer(grad)))
    return kl.value, grad


def kl_estimate(direction, estimator, sampled_from, logp, logq):
    """(each, mean, standard error of the mean) from samples."""
    logp = _f64(logp, "logp")
    logq, each = _f64(logq, "logq", logp.size), np.empty(logp.size)
    mean, error = ctypes.c_double(), ctypes.c_double()
    check(lib.prefopt_kl_estimate(direction, estimator, sampled_from, logp.size, _pointer(logp),
                                  _pointer(logq), _pointer(each), ctypes.addressof(mean),
                                  ctypes.addressof(error)))
    return each, mean.value, error.value


def kl_score_weights(direction, estimator, sampled_from, logp, logq):
    """What each sample's gradient of log p is multiplied by when an estimate is differentiated."""
    logp = _f64(logp, "logp")
    logq, weight = _f64(logq, "logq", logp.size), np.empty(logp.size)
    check(lib.prefopt_kl_score_weights(direction, estimator, sampled_from, logp.size, _pointer(logp),
                                       _pointer(logq), _pointer(weight)))
    return weight


def logprobs_from_logits(logits, target, temperature=1.0):
    """logp [rows] of float32 logits [rows, vocab] at int32 targets (-1: skip)."""
    logits = _array(logits, np.float32, "logits")
    rows, vocab = logits.shape
    target, logp = _array(target, np.int32, "target", rows), np.empty(rows)
    check(lib.prefopt_logprobs_from_logits(rows, vocab, _pointer(logits), vocab, _pointer(target),
                                           temperature, _pointer(logp)))
    return logp


def logprobs_backward(logits, target, grad_logp, temperature=1.0, out=None):
    """grad_logits [rows, vocab]; out may be logits itself."""
    logits = _array(logits, np.float32, "logits")
    rows, vocab = logits.shape
    target, grad_logp = _array(target, np.int32, "target", rows), _f64(grad_logp, "grad_logp", rows)
    out = np.empty_like(logits) if out is None else out
    if out.dtype != np.float32 or out.shape != logits.shape or not out.flags.c_contiguous:
        raise ValueError("out: expected a C-contiguous float32 array of the shape of logits")
    check(lib.prefopt_logprobs_backward(rows, vocab, _pointer(logits), vocab, _pointer(target),
                                        temperature, _pointer(grad_logp), _pointer(out)))
    return out


def _hidden_and_weight(hidden, weight):
    hidden, weight = _array(hidden, np.float32, "hidden"), _array(weight, np.float32, "weight")
    if hidden.ndim != 2 or weight.ndim != 2 or hidden.shape[1] != weight.shape[1]:
        raise ValueError(f"hidden has shape {hidden.shape} and weight {weight.shape}, expected "
                         "[rows, width] and [vocab, width]")
    return hidden, weight


def linear_logprobs(context, hidden, weight, target):
    """logp [rows] for logits = hidden weight^T that are never held whole."""
    hidden, weight = _hidden_and_weight(hidden, weight)
    (rows, width), vocab = hidden.shape, weight.shape[0]
    target, logp = _array(target, np.int32, "target", rows), np.empty(rows)
    check(lib.prefopt_linear_logprobs(context.handle, rows, width, vocab, _pointer(hidden),
                                      _pointer(weight), _pointer(target), _pointer(logp)))
    return logp


def linear_logprobs_backward(context, hidden, weight, target, grad_logp, grad_weight=None):
    """grad_hidden; grad_weight (float32, like weight) is added to when given."""
    hidden, weight = _hidden_and_weight(hidden, weight)
    (rows, width), vocab = hidden.shape, weight.shape[0]
    target, grad_logp = _array(target, np.int32, "target", rows), _f64(grad_logp, "grad_logp", rows)
    grad_hidden = np.empty_like(hidden)
    if grad_weight is not None and (grad_weight.dtype != np.float32 or grad_weight.shape != weight.shape
                                    or not grad_weight.flags.c_contiguous):
        raise ValueError("grad_weight: expected a C-contiguous float32 array of the shape of weight")
    check(lib.prefopt_linear_logprobs_backward(
        context.handle, rows, width, vocab, _pointer(hidden), _pointer(weight), _pointer(target),
        _pointer(grad_logp), _pointer(grad_hidden), _pointer(grad_weight)))
    return grad_hidden


# ---------------------------------------------------------------- handles
class _Handle:
    """Owns one reference to a handle of the library; close() or the end of a with block gives it up."""

    _destroy = None

    def __init__(self, handle, keep=()):
        self.handle, self._keep = handle, keep

    @classmethod
    def _made(cls, function, *arguments, keep=()):
        out = ctypes.c_void_p()
        check(function(ctypes.addressof(out), *arguments))
        return cls(out.value, keep)

    def close(self):
        if self.handle:
            getattr(lib, self._destroy)(self.handle)
            self.handle = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __del__(self):
        if getattr(self, "handle", None) and lib is not None:
            self.close()


class Context(_Handle):
    """Threads, memory and log of everything made with it. Options as in prefopt_context_options;
    log is a callable that takes a level and a text."""

    _destroy = "prefopt_context_destroy"
    _LOG = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int32, ctypes.c_char_p)
    _logs = []

    def __init__(self, log=None, **options):
        value = _options("prefopt_context_options", options)
        callback = None
        if log is not None:
            callback = self._LOG(lambda _, level, text: log(level, text.decode(errors="replace")))
            value.log = ctypes.cast(callback, ctypes.c_void_p).value
            self._logs.append(callback)  # for ever: handles keep the context when this object is gone
        out = ctypes.c_void_p()
        check(lib.prefopt_context_create(ctypes.addressof(out), ctypes.addressof(value)))
        super().__init__(out.value)

    @property
    def threads(self):
        return lib.prefopt_context_threads(self.handle)


class Sequences:
    """A view of token sequences laid end to end: tokens (int32), offsets (int64, n + 1), prompt_len
    (int64, n). Arrays of the right type are not copied."""

    def __init__(self, tokens, offsets, prompt_len):
        self.tokens = _array(tokens, np.int32, "tokens")
        self.offsets = _array(offsets, np.int64, "offsets")
        self.n = self.offsets.size - 1
        if self.n < 0 or self.offsets.max() > self.tokens.size:
            raise ValueError(f"offsets has {self.offsets.size} elements for {self.tokens.size} tokens: "
                             "expected one more than sequences, each at most the number of tokens")
        self.prompt_len = _array(prompt_len, np.int64, "prompt_len", self.n)
        self.struct = _struct("prefopt_sequences", n=self.n, tokens=self.tokens, offsets=self.offsets,
                              prompt_len=self.prompt_len)

    @classmethod
    def of(cls, pairs):
        """From a list of (prompt, completion), each a list of tokens."""
        parts = [np.concatenate([np.asarray(p, np.int32).ravel(), np.asarray(c, np.int32).ravel()])
                 for p, c in pairs]
        offsets = np.concatenate([[0], np.cumsum([part.size for part in parts])]).astype(np.int64)
        return cls(np.concatenate(parts) if parts else np.empty(0, np.int32), offsets,
                   [len(p) for p, _ in pairs])

    @classmethod
    def _view(cls, struct, keep=None):
        """Of a struct that the library filled: arrays over its memory, valid while that is."""
        n = struct.n
        offsets = _over(struct.offsets, ctypes.c_int64, n + 1, keep) if n else np.zeros(1, np.int64)
        tokens = _over(struct.tokens, ctypes.c_int32, int(offsets[-1]), keep)
        return cls(tokens, offsets, _over(struct.prompt_len, ctypes.c_int64, n, keep))

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        if not 0 <= i < self.n:
            raise IndexError(i)
        start, middle = self.offsets[i], self.offsets[i] + self.prompt_len[i]
        return self.tokens[start:middle], self.tokens[middle:self.offsets[i + 1]]


def _over(pointer, ctype, n, keep=None):
    """An array over n elements at a pointer, without a copy; keep lives as long as it does."""
    if not pointer or n == 0:
        return np.empty(0, ctype)
    memory = (ctype * n).from_address(pointer)
    memory._keep = keep
    return np.frombuffer(memory, ctype)


def _sequences(value):
    return value if isinstance(value, Sequences) else Sequences.of(value)


class Dataset(_Handle):
    """Rows of prompts with 0, 1, 2 or more completions each: prefopt/data.h."""

    _destroy = "prefopt_dataset_destroy"

    def __init__(self, context_or_handle, keep=()):
        if isinstance(context_or_handle, Context):
            out = ctypes.c_void_p()
            check(lib.prefopt_dataset_create(ctypes.addressof(out), context_or_handle.handle))
            context_or_handle = out.value
        super().__init__(context_or_handle, keep)

    @classmethod
    def read_jsonl(cls, context, path):
        return cls._made(lib.prefopt_dataset_read_jsonl, context.handle, os.fsencode(path))

    @classmethod
    def read_text(cls, context, tokenizer, path, **options):
        """(dataset, counts) from JSON Lines of text, gzip or not: prefopt/text.h. Options as in
        prefopt_text_options, eos among them."""
        counts = _struct("prefopt_text_counts")
        data = cls._made(lib.prefopt_text_read, context.handle, tokenizer.handle, os.fsencode(path),
                         _ref(_options("prefopt_text_options", options)), _ref(counts))
        return data, _result(counts)

    def write_jsonl(self, path):
        check(lib.prefopt_dataset_write_jsonl(self.handle, os.fsencode(path)))

    def append(self, kind, prompt, completions=(), *, weight=1.0, label=1.0, margin=0.0, extra=None,
               ref_key=0, **columns):
        """One row: kind is ROW_PROMPT, ROW_COMPLETIONS, ROW_PAIR or ROW_RANKING."""
        prompt = _array(prompt, np.int32, "prompt")
        parts = [_array(c, np.int32, "completion") for c in completions]
        tokens = np.concatenate(parts) if parts else np.empty(0, np.int32)
        offsets = np.concatenate([[0], np.cumsum([p.size for p in parts])]).astype(np.int64)
        columns = {k: _f64(v, k, len(parts)) for k, v in columns.items() if v is not None}
        text = None if extra is None else ctypes.create_string_buffer(extra.encode())
        row = _struct("prefopt_row", kind=kind, n_completions=len(parts), prompt=prompt,
                      prompt_len=prompt.size, completions=tokens, completion_offsets=offsets,
                      weight=weight, label=label, margin=margin, ref_key=ref_key,
                      extra=None if text is None else ctypes.addressof(text), **columns)
        check(lib.prefopt_dataset_append(self.handle, _ref(row)))

    def append_pair(self, prompt, chosen, rejected, weight=1.0, label=1.0, margin=0.0):
        prompt, chosen, rejected = (_array(a, np.int32, "tokens") for a in (prompt, chosen, rejected))
        check(lib.prefopt_dataset_append_pair(
            self.handle, _pointer(prompt), prompt.size, _pointer(chosen), chosen.size,
            _pointer(rejected), rejected.size, weight, label, margin))

    def __len__(self):
        return lib.prefopt_dataset_size(self.handle)

    def __getitem__(self, i):
        """Row i as a namespace with lists of token arrays; everything is copied."""
        row = _struct("prefopt_row")
        if not 0 <= i < len(self):
            raise IndexError(i)
        check(lib.prefopt_dataset_row(self.handle, i, _ref(row)))
        k = row.n_completions
        offsets = _over(row.completion_offsets, ctypes.c_int64, k + 1) if k else np.zeros(1, np.int64)
        tokens = _over(row.completions, ctypes.c_int32, int(offsets[-1]))
        out = _result(row, prompt=_over(row.prompt, ctypes.c_int32, row.prompt_len).copy(),
                      completions=[tokens[offsets[j]:offsets[j + 1]].copy() for j in range(k)],
                      extra=ctypes.string_at(row.extra).decode() if row.extra else None)
        for name in ("logp", "sampler_logp", "score", "ref_logp"):
            pointer = getattr(row, name)
            setattr(out, name, _over(pointer, ctypes.c_double, k).copy() if pointer else None)
        return out

    def sequences(self):
        """All sequences as a view over the dataset's memory: valid until it is appended to."""
        view = _struct("prefopt_sequences")
        check(lib.prefopt_dataset_sequences(self.handle, _ref(view)))
        return Sequences._view(view, self)

    def columns(self):
        """The columns as arrays over the dataset's memory: valid until it is appended to."""
        view = _struct("prefopt_columns")
        check(lib.prefopt_dataset_columns(self.handle, _ref(view)))
        rows, n = view.n_rows, view.n_sequences
        out = types.SimpleNamespace(first=_over(view.first, ctypes.c_int64, rows + 1, self),
                                    kind=_over(view.kind, ctypes.c_int32, rows, self))
        for name in ("weight", "label", "margin"):
            setattr(out, name, _over(getattr(view, name), ctypes.c_double, rows, self))
        for name in ("logp", "sampler_logp", "score", "ref_logp"):
            setattr(out, name, _over(getattr(view, name), ctypes.c_double, n, self))
        out.ref_key = _over(view.ref_key, ctypes.c_uint64, rows, self)
        return out

    def set_column(self, column, values):
        values = _f64(values, "values", len(self.sequences()))
        check(lib.prefopt_dataset_set_column(self.handle, column, _pointer(values)))

    def select(self, rows):
        rows = _array(rows, np.int64, "rows")
        return Dataset._made(lib.prefopt_dataset_select, self.handle, _pointer(rows), rows.size)

    def split(self, fraction, seed=0, by_row=False):
        """(first, second): each prompt's rows go to the second with that probability."""
        first, second = ctypes.c_void_p(), ctypes.c_void_p()
        check(lib.prefopt_dataset_split(ctypes.addressof(first), ctypes.addressof(second), self.handle,
                                        fraction, seed, int(by_row)))
        return Dataset(first.value), Dataset(second.value)

    def hash(self):
        return lib.prefopt_dataset_hash(self.handle)


class Tokenizer(_Handle):
    """Text to tokens and back, from a tokenizer.json: prefopt/tokenizer.h."""

    _destroy = "prefopt_tokenizer_destroy"

    @classmethod
    def load(cls, context, path):
        return cls._made(lib.prefopt_tokenizer_load, context.handle, os.fsencode(path))

    def __len__(self):
        return lib.prefopt_tokenizer_size(self.handle)

    def encode(self, text):
        """Tokens (int32) of a str, or of bytes in UTF-8."""
        raw, n = _utf8(text), ctypes.c_int64()
        tokens = np.empty(len(raw) // 3 + 16, np.int32)  # most texts fit; else once more
        for _ in range(2):
            check(lib.prefopt_tokenizer_encode(self.handle, raw, len(raw), _pointer(tokens), tokens.size,
                                               ctypes.addressof(n)))
            if n.value <= tokens.size:
                break
            tokens = np.empty(n.value, np.int32)
        return tokens[:n.value].copy()

    def decode(self, tokens):
        """The bytes of tokens; .decode() makes them a str where they end between characters."""
        tokens, n = _array(tokens, np.int32, "tokens").ravel(), ctypes.c_int64()
        call = lib.prefopt_tokenizer_decode
        check(call(self.handle, _pointer(tokens), tokens.size, None, 0, ctypes.addressof(n)))
        out = ctypes.create_string_buffer(n.value + 1)
        check(call(self.handle, _pointer(tokens), tokens.size, ctypes.addressof(out), n.value,
                   ctypes.addressof(n)))
        return out.raw[:n.value]

    def token(self, text):
        """The token whose text is exactly this, such as "<|endoftext|>"; None where there is none."""
        raw, out = _utf8(text), ctypes.c_int32()
        check(lib.prefopt_tokenizer_token(self.handle, raw, len(raw), ctypes.addressof(out)))
        return None if out.value < 0 else out.value

    def is_special(self, token):
        return bool(lib.prefopt_tokenizer_is_special(self.handle, token))


def _utf8(text):
    return text.encode() if isinstance(text, str) else bytes(text)


def shuffle_order(seed, epoch, n):
    order = np.empty(n, np.int64)
    check(lib.prefopt_shuffle_order(seed, epoch, n, _pointer(order)))
    return order


# ---------------------------------------------------------------- models
def space(vocab, horizon, eos=-1):
    """The completions there can be: at most `horizon` tokens; eos -1: exactly so many."""
    return _struct("prefopt_space", vocab=vocab, horizon=horizon, eos=eos)


def _features(values, n):
    features = _f64(values, "features")
    if features.ndim != 2 or features.shape[0] != n:
        raise ValueError(f"features has shape {features.shape}, expected ({n}, n_features)")
    return features


class _Model(_Handle):
    _kind = None

    def parameters(self):
        """(values, gradients) as arrays over the model's own memory; call updated() after writing."""
        out = _struct("prefopt_parameters")
        check(getattr(lib, f"prefopt_{self._kind}_parameters")(self.handle, _ref(out)))
        ctype = ctypes.c_double if out.dtype == F64 else ctypes.c_float  # noqa: F821
        return _over(out.value, ctype, out.n, self), _over(out.grad, ctype, out.n, self)

    def updated(self):
        check(getattr(lib, f"prefopt_{self._kind}_updated")(self.handle))

    def zero_grad(self):
        check(getattr(lib, f"prefopt_{self._kind}_zero_grad")(self.handle))

    def tensors(self):
        """A transformer's parameters by name, as in the checkpoint: {name: (values, gradients)},
        arrays of its shape over the model's own memory; call updated() after writing."""
        call = getattr(lib, f"prefopt_{self._kind}_tensor")
        views, out = None, {}
        for i in range(2**31):
            tensor = _struct("prefopt_tensor")
            try:
                check(call(self.handle, i, _ref(tensor)))
            except ArgumentError:  # noqa: F821: i is past the last
                return out
            views = views or self.parameters()
            size = tensor.rows * tensor.columns
            shape = (tensor.rows, tensor.columns)[:tensor.n_dims]
            out[ctypes.string_at(tensor.name).decode()] = tuple(
                view[tensor.offset:tensor.offset + size].reshape(shape) for view in views)

    def set_recompute(self, recompute=True):
        """A transformer's backward pass: whether it computes the layers again rather than keep them."""
        check(getattr(lib, f"prefopt_{self._kind}_set_recompute")(self.handle, int(recompute)))

    def hash(self):
        """64 bits of kind, shape and parameters."""
        out = ctypes.c_uint64()
        check(getattr(lib, f"prefopt_{self._kind}_hash")(self.handle, ctypes.addressof(out)))
        return out.value

    @classmethod
    def load(cls, context, directory):
        """A transformer from a folder in Hugging Face's layout."""
        return cls._made(getattr(lib, f"prefopt_{cls._kind}_load"), context.handle,
                         os.fsencode(directory))

    def save(self, directory, dtype=1):
        """Writes config.json and model.safetensors; dtype: F32 (the default), F16 or BF16."""
        check(getattr(lib, f"prefopt_{self._kind}_save_as")(self.handle, os.fsencode(directory), dtype))


def _callback(function, result, *arguments):
    """A C callback that answers 0, or -9 when the Python function raised."""
    def call(*values):
        try:
            function(*values)
            return 0
        except BaseException as error:  # noqa: B902: nothing may pass through C
            _thread.raised = error
            return -9
    return ctypes.CFUNCTYPE(result, *arguments)(call)


def _callback_view(address):
    struct = ctypes.cast(address, ctypes.POINTER(structs.prefopt_sequences)).contents
    return Sequences._view(struct)


_P = ctypes.c_void_p


def _fill_parameters(arrays):
    """A `parameters` callback for a pair of C-contiguous arrays (values, gradients) of one dtype."""
    values, grads = arrays
    if values.dtype != grads.dtype or values.size != grads.size or values.dtype not in (
            np.float64, np.float32) or not (values.flags.c_contiguous and grads.flags.c_contiguous):
        raise ValueError("parameters: expected two C-contiguous arrays of one float type and size")

    def parameters(_, out):
        struct = ctypes.cast(out, ctypes.POINTER(structs.prefopt_parameters)).contents
        struct.dtype = 0 if values.dtype == np.float64 else 1
        struct.n, struct.value, struct.grad = values.size, _pointer(values), _pointer(grads)
    return parameters


class Policy(_Model):
    """A policy: prefopt/model.h. Made by tabular, loglinear or custom, and language models
    (prefopt/transformer.h) by load or transformer."""

    _destroy, _kind = "prefopt_policy_destroy", "policy"

    @classmethod
    def transformer(cls, context, seed=0, **config):
        """A random language model. Its shape by keyword, as in prefopt_transformer_config."""
        return cls._made(lib.prefopt_policy_create_transformer, context.handle,
                         _ref(_options("prefopt_transformer_config", config)), seed)

    def config(self):
        """A transformer's configuration: a namespace with the fields of prefopt_transformer_config."""
        out = _struct("prefopt_transformer_config")
        check(lib.prefopt_policy_transformer_config(self.handle, _ref(out)))
        return _result(out)

    def set_transitions(self, allowed):
        """Which token may follow which: [vocab, vocab] of booleans, row: the token before; None: all."""
        if allowed is not None:
            vocab = self.config().vocab
            allowed = np.ascontiguousarray(np.asarray(allowed, dtype=bool), dtype=np.uint8)
            if allowed.shape != (vocab, vocab):
                raise ValueError(f"allowed: shape {allowed.shape}, expected {(vocab, vocab)}")
        check(lib.prefopt_policy_set_transitions(self.handle, _pointer(allowed)))

    @classmethod
    def tabular(cls, context, space, prompts=None):
        """prompts: a list of token lists; None: the empty prompt alone."""
        view = None if prompts is None else Sequences.of([(p, []) for p in prompts])
        return cls._made(lib.prefopt_policy_create_tabular, context.handle, _ref(space),
                         None if view is None else _ref(view.struct))

    @classmethod
    def loglinear(cls, context, space, sequences, features, base_logp=None):
        view = _sequences(sequences)
        features = _features(features, view.n)
        base_logp = _f64(base_logp, "base_logp", view.n)
        return cls._made(lib.prefopt_policy_create_loglinear, context.handle, _ref(space),
                         _ref(view.struct), features.shape[1], _pointer(features), _pointer(base_logp))

    @classmethod
    def custom(cls, context, logprobs, backward=None, next_logprobs=None, parameters=None, space=None):
        """A policy written in Python.

        logprobs(sequences) -> sequence_logp, or (sequence_logp, token_logp with one a token, 0 at
        prompt tokens); backward(sequences, grad_sequence_logp) adds to the gradients;
        next_logprobs(sequences) -> [n, vocab]; parameters: (values, gradients), two arrays that stay.
        Sequences are valid during the call alone.
        """
        def c_logprobs(_, view, sequence_logp, token_logp):
            view = _callback_view(view)
            result = logprobs(view)
            by_sequence, by_token = result if isinstance(result, tuple) else (result, None)
            if token_logp:
                if by_token is None:
                    raise ValueError("logprobs gave no log-probabilities by token")
                size = int(view.offsets[-1] - view.offsets[0])
                _over(token_logp, ctypes.c_double, size)[:] = by_token
            _over(sequence_logp, ctypes.c_double, view.n)[:] = by_sequence

        def c_backward(_, view, grad):
            view = _callback_view(view)
            backward(view, _over(grad, ctypes.c_double, view.n))

        def c_next(_, view, out):
            view = _callback_view(view)
            _over(out, ctypes.c_double, view.n * space.vocab)[:] = np.asarray(
                next_logprobs(view), float).reshape(-1)

        made = {"logprobs": _callback(c_logprobs, ctypes.c_int32, _P, _P, _P, _P)}
        if backward is not None:
            made["backward"] = _callback(c_backward, ctypes.c_int32, _P, _P, _P)
        if next_logprobs is not None:
            made["next_logprobs"] = _callback(c_next, ctypes.c_int32, _P, _P, _P)
        if parameters is not None:
            made["parameters"] = _callback(_fill_parameters(parameters), ctypes.c_int32, _P, _P)
        table = _struct("prefopt_policy_callbacks",
                        **{k: ctypes.cast(v, _P).value for k, v in made.items()})
        return cls._made(lib.prefopt_policy_create_custom, context.handle, _ref(space), _ref(table),
                         None, keep=(made, parameters))

    def logprobs(self, sequences, tokens=False):
        view = _sequences(sequences)
        by_sequence = np.empty(view.n)
        by_token = np.empty(int(view.offsets[-1] - view.offsets[0])) if tokens else None
        check(lib.prefopt_policy_logprobs(self.handle, _ref(view.struct), _pointer(by_sequence),
                                          _pointer(by_token)))
        return (by_sequence, by_token) if tokens else by_sequence

    def backward(self, sequences, grad_sequence_logp):
        view = _sequences(sequences)
        grad = _f64(grad_sequence_logp, "grad_sequence_logp", view.n)
        check(lib.prefopt_policy_backward(self.handle, _ref(view.struct), _pointer(grad)))

    def space(self):
        out = _struct("prefopt_space")
        check(lib.prefopt_policy_space(self.handle, _ref(out)))
        return out

    def next_logprobs(self, sequences):
        view = _sequences(sequences)
        out = np.empty((view.n, self.space().vocab))
        check(lib.prefopt_policy_next_logprobs(self.handle, _ref(view.struct), _pointer(out)))
        return out

    def set_logprobs(self, sequences, sequence_logp):
        view = _sequences(sequences)
        logp = _f64(sequence_logp, "sequence_logp", view.n)
        check(lib.prefopt_policy_set_logprobs(self.handle, _ref(view.struct), _pointer(logp)))

    def enumerate(self, prompts, limit=0):
        return Dataset._made(lib.prefopt_policy_enumerate, self.handle, prompts.handle, limit)

    def freeze(self):
        return Reference._made(lib.prefopt_reference_freeze, self.handle, keep=(self,))


class Reference(_Handle):
    """A policy that does not change. Made by Policy.freeze, uniform, fixed or of_dataset."""

    _destroy = "prefopt_reference_destroy"

    @classmethod
    def uniform(cls, context, space):
        return cls._made(lib.prefopt_reference_create_uniform, context.handle, _ref(space))

    @classmethod
    def fixed(cls, context, sequences, sequence_logp):
        view = _sequences(sequences)
        logp = _f64(sequence_logp, "sequence_logp", view.n)
        return cls._made(lib.prefopt_reference_create_fixed, context.handle, _ref(view.struct),
                         _pointer(logp))

    @classmethod
    def of_dataset(cls, dataset):
        return cls._made(lib.prefopt_reference_from_dataset, dataset.handle)

    def logprobs(self, sequences):
        view = _sequences(sequences)
        out = np.empty(view.n)
        check(lib.prefopt_reference_logprobs(self.handle, _ref(view.struct), _pointer(out)))
        return out

    def annotate(self, dataset, progress=None, collective=None):
        """Fills the column ref_logp and each row's ref_key; False when progress(done, total) stopped it
        by returning True. collective: all its ranks do it together, each its part."""
        raised = []

        def call(_, done, total):
            try:
                return int(bool(progress(done, total)))
            except BaseException as error:  # noqa: B902: nothing may pass through C
                raised.append(error)
                return 1
        callback = None
        if progress is not None:
            callback = ctypes.CFUNCTYPE(ctypes.c_int32, _P, ctypes.c_int64, ctypes.c_int64)(call)
        arguments = self.handle, dataset.handle, ctypes.cast(callback, _P).value, None
        if collective is None:
            status = lib.prefopt_reference_annotate(*arguments)
        else:
            status = lib.prefopt_collective_annotate(_ref(collective.struct), *arguments)
        if raised:
            raise raised[0]
        with _errors_of(collective):
            check(status)
        return status == 0

    def hash(self):
        out = ctypes.c_uint64()
        check(lib.prefopt_reference_hash(self.handle, ctypes.addressof(out)))
        return out.value


class Reward(_Model):
    """A reward model. Made by tabular, linear, implicit, local or custom, and on a language model's
    layers by from_policy or load."""

    _destroy, _kind = "prefopt_reward_destroy", "reward"

    @classmethod
    def from_policy(cls, policy):
        """A copy of a transformer's layers with a linear head, which starts at 0, for the softmax."""
        return cls._made(lib.prefopt_reward_from_policy, policy.handle)

    @classmethod
    def tabular(cls, context, sequences):
        return cls._made(lib.prefopt_reward_create_tabular, context.handle,
                         _ref(_sequences(sequences).struct))

    @classmethod
    def linear(cls, context, sequences, features):
        view = _sequences(sequences)
        features = _features(features, view.n)
        return cls._made(lib.prefopt_reward_create_linear, context.handle, _ref(view.struct),
                         features.shape[1], _pointer(features))

    @classmethod
    def implicit(cls, policy, reference, beta):
        return cls._made(lib.prefopt_reward_create_implicit, policy.handle, reference.handle, beta,
                         keep=(policy, reference))

    @classmethod
    def local(cls, policy):
        return cls._made(lib.prefopt_reward_create_local, policy.handle, keep=(policy,))

    @classmethod
    def custom(cls, context, scores, backward=None, parameters=None):
        """A reward written in Python: scores(sequences) -> n numbers; the rest as in Policy.custom."""
        def c_scores(_, view, out):
            view = _callback_view(view)
            _over(out, ctypes.c_double, view.n)[:] = scores(view)

        def c_backward(_, view, grad):
            view = _callback_view(view)
            backward(view, _over(grad, ctypes.c_double, view.n))

        made = {"scores": _callback(c_scores, ctypes.c_int32, _P, _P, _P)}
        if backward is not None:
            made["backward"] = _callback(c_backward, ctypes.c_int32, _P, _P, _P)
        if parameters is not None:
            made["parameters"] = _callback(_fill_parameters(parameters), ctypes.c_int32, _P, _P)
        table = _struct("prefopt_reward_callbacks",
                        **{k: ctypes.cast(v, _P).value for k, v in made.items()})
        return cls._made(lib.prefopt_reward_create_custom, context.handle, _ref(table), None,
                         keep=(made, parameters))

    def scores(self, sequences):
        view = _sequences(sequences)
        out = np.empty(view.n)
        check(lib.prefopt_reward_scores(self.handle, _ref(view.struct), _pointer(out)))
        return out

    def backward(self, sequences, grad_score):
        view = _sequences(sequences)
        grad = _f64(grad_score, "grad_score", view.n)
        check(lib.prefopt_reward_backward(self.handle, _ref(view.struct), _pointer(grad)))

    def annotate(self, dataset):
        check(lib.prefopt_reward_annotate(self.handle, dataset.handle))


# ---------------------------------------------------------------- online
def _sampler_options(keywords):
    """prefopt_sampler_options; stop is a list of tokens. The struct keeps it alive."""
    keywords = dict(keywords)
    stop = _array(keywords.pop("stop", None), np.int32, "stop")
    value = _options("prefopt_sampler_options", keywords)
    if stop is not None and stop.size:
        value._keep, value.stop, value.n_stop = stop, _pointer(stop), stop.size
    return value


def sample(policy, prompts, *, on_token=None, **options):
    """Completions of each prompt row. Options as in prefopt_sampler_options; stop: a list of tokens
    that end a completion. on_token(row, completion, token) is called for each token as it is drawn;
    where it returns something true, sampling stops and the result is None."""
    value = _sampler_options(options)
    if on_token is not None:
        def call(_, row, completion, token):
            try:
                return 1 if on_token(row, completion, token) else 0
            except BaseException as error:  # noqa: B902: nothing may pass through C
                _thread.raised = error
                return -9
        callback = ctypes.CFUNCTYPE(ctypes.c_int32, _P, ctypes.c_int64, ctypes.c_int64,
                                    ctypes.c_int32)(call)
        value.token = ctypes.cast(callback, _P).value
    samples = Dataset._made(lib.prefopt_sample, policy.handle, prompts.handle, _ref(value))
    return samples if samples.handle else None


def rank(reward, samples, **options):
    """(pairs, counts) from sampled completions. Options as in prefopt_ranker_options."""
    counts = _struct("prefopt_rank_counts")
    pairs = Dataset._made(lib.prefopt_rank, reward.handle, samples.handle,
                          _ref(_options("prefopt_ranker_options", options)), _ref(counts))
    return pairs, _result(counts)


def best_of_n(n, logp, score):
    """Exactly: bon_logp, kl, bound (log n - (n-1)/n), expected_score."""
    logp = _f64(logp, "logp")
    score, out = _f64(score, "score", logp.size), np.empty(logp.size)
    kl, bound, mean = ctypes.c_double(), ctypes.c_double(), ctypes.c_double()
    check(lib.prefopt_best_of_n(n, logp.size, _pointer(logp), _pointer(score), _pointer(out),
                                ctypes.addressof(kl), ctypes.addressof(bound), ctypes.addressof(mean)))
    return types.SimpleNamespace(bon_logp=out, kl=kl.value, bound=bound.value, expected_score=mean.value)


# ---------------------------------------------------------------- strengths
def _comparisons(n_items, first, second, weight, label):
    first = _array(first, np.int32, "first")
    n = first.size
    return _struct("prefopt_comparisons", n_items=n_items, n=n, first=first,
                   second=_array(second, np.int32, "second", n), weight=_f64(weight, "weight", n),
                   label=_f64(label, "label", n))


def _strengths_options(options, n_items):
    names = options.pop("item_names", None)
    value = _options("prefopt_strengths_options", options)
    if names is not None:
        if len(names) != n_items:
            raise ValueError(f"item_names has {len(names)} names, expected {n_items}")
        array = (ctypes.c_char_p * len(names))(*[str(name).encode() for name in names])
        value._keep = array
        value.item_names = ctypes.addressof(array)
    return value


def strengths(n_items, first=None, second=None, weight=None, label=None, *, rankings=None, context=None,
              **options):
    """Strengths of items from comparisons, or from rankings (lists of items, best first): theta,
    std_error, covariance(), log_likelihood, log_tie. Options as in prefopt_strengths_options."""
    comparisons = table = None
    if rankings is None:
        comparisons = _comparisons(n_items, first, second, weight, label)
    else:
        offsets = np.concatenate([[0], np.cumsum([len(r) for r in rankings])]).astype(np.int64)
        items = np.concatenate([np.asarray(r, np.int32) for r in rankings]) if len(rankings) else \
            np.empty(0, np.int32)
        table = _struct("prefopt_rankings", n_items=n_items, n=len(rankings), offsets=offsets,
                        items=items, weight=_f64(weight, "weight", len(rankings)))
    context = context or Context()
    fit = _Strengths._made(lib.prefopt_strengths_fit, context.handle, _ref(comparisons), _ref(table),
                           _ref(_strengths_options(options, n_items)), keep=(context,))
    theta, error = np.empty(n_items), np.empty(n_items)
    check(lib.prefopt_strengths_values(fit.handle, _pointer(theta), _pointer(error)))
    summary = _struct("prefopt_strengths_summary")
    check(lib.prefopt_strengths_summarise(fit.handle, _ref(summary)))
    out = _result(summary, theta=theta, std_error=error)
    out.covariance = fit.covariance
    return out


class _Strengths(_Handle):
    _destroy = "prefopt_strengths_destroy"

    def covariance(self):
        summary = _struct("prefopt_strengths_summary")
        check(lib.prefopt_strengths_summarise(self.handle, _ref(summary)))
        out = np.empty((summary.n_items, summary.n_items))
        check(lib.prefopt_strengths_covariance(self.handle, _pointer(out)))
        return out


# ---------------------------------------------------------------- training
class Collective:
    """Ranks that train one model, for the training option `collective`: prefopt_collective. add(array)
    makes each rank's array the sum of all, in place; broadcast(array, root) makes it root's. With
    mpi4py: add = lambda a: comm.Allreduce(MPI.IN_PLACE, a), broadcast = comm.Bcast."""

    def __init__(self, rank, size, add, broadcast):
        self.failures = []

        def guarded(dtype, call):
            def run(_, address, n, *root):
                try:
                    array = np.ctypeslib.as_array(ctypes.cast(address, ctypes.POINTER(dtype)), (n,))
                    call(array, *root)
                    return 0
                except BaseException as error:  # noqa: B902: fails the call, which raises it
                    self.failures.append(error)
                    return -1
            return run
        value = ctypes.c_int32, _P, _P, ctypes.c_int64
        self._calls = [ctypes.CFUNCTYPE(*value)(guarded(ctypes.c_float, add)),
                       ctypes.CFUNCTYPE(*value)(guarded(ctypes.c_double, add)),
                       ctypes.CFUNCTYPE(*value, ctypes.c_int64)(guarded(ctypes.c_uint8, broadcast))]
        self.struct = _struct("prefopt_collective")
        self.struct.rank, self.struct.size = rank, size
        for name, call in zip(("sum_f32", "sum_f64", "broadcast"), self._calls):
            setattr(self.struct, name, ctypes.cast(call, _P).value)


@contextlib.contextmanager
def _errors_of(collective):
    """What the collective's callbacks raised, rather than what the library makes of it."""
    try:
        yield
    except Error:
        if collective is not None and collective.failures:
            raise collective.failures.pop()
        raise


class Trainer(_Handle):
    """One objective and its loop: prefopt/train.h. progress: a callable that takes a namespace and
    returns something true to stop. Training options by keyword, as in prefopt_train_options."""

    _destroy = "prefopt_trainer_destroy"

    @classmethod
    def _create(cls, name, keep, *arguments, progress=None, collective=None, **options):
        if collective is not None:
            options["collective"] = ctypes.addressof(collective.struct)
        value, callback = _options("prefopt_train_options", options), None
        if progress is not None:
            holder = []

            def call(_, address):
                try:
                    struct = ctypes.cast(address, ctypes.POINTER(structs.prefopt_progress)).contents
                    return 1 if progress(_result(struct)) else 0
                except BaseException as error:  # noqa: B902: stops the run; raised by run and fit
                    holder.append(error)
                    return 1
            callback = ctypes.CFUNCTYPE(ctypes.c_int32, _P, _P)(call)
            value.progress = ctypes.cast(callback, _P).value
        with _errors_of(collective):
            made = cls._made(getattr(lib, f"prefopt_trainer_create_{name}"), *arguments, _ref(value),
                             keep=(keep, callback, collective))
        made._failures = holder if progress is not None else []
        made._collective = collective
        return made

    @classmethod
    def mle(cls, policy, data, **options):
        return cls._create("mle", (policy, data), policy.handle, data.handle, **options)

    @classmethod
    def reward(cls, reward, data, bt=None, **options):
        """bt: a dict of prefopt_bt_options."""
        return cls._create("reward", (reward, data), reward.handle, data.handle,
                           _ref(_options("prefopt_bt_options", bt or {})), **options)

    @classmethod
    def dpo(cls, policy, reference, data, dpo=None, **options):
        """dpo: a dict of prefopt_dpo_options."""
        return cls._create("dpo", (policy, reference, data), policy.handle,
                           None if reference is None else reference.handle, data.handle,
                           _ref(_options("prefopt_dpo_options", dpo or {})), **options)

    @classmethod
    def policy_gradient(cls, policy, reference, reward, prompts, pg=None, sampler=None, rounds=None,
                        **options):
        """pg, sampler, rounds: dicts of prefopt_pg_options, _sampler_options, _round_options."""
        return cls._create("policy_gradient", (policy, reference, reward, prompts), policy.handle,
                           None if reference is None else reference.handle, reward.handle,
                           prompts.handle, _ref(_options("prefopt_pg_options", pg or {})),
                           _ref(_sampler_options(sampler or {})),
                           _ref(_options("prefopt_round_options", rounds or {})), **options)

    @classmethod
    def soft_rl(cls, policy, reference, reward, prompts, beta, **options):
        return cls._create("soft_rl", (policy, reference, reward, prompts), policy.handle,
                           None if reference is None else reference.handle, reward.handle,
                           prompts.handle, beta, **options)

    @classmethod
    def online_dpo(cls, policy, reference, reward, prompts, dpo=None, sampler=None, ranker=None,
                   rounds=None, **options):
        """dpo, sampler, ranker, rounds: dicts of prefopt_dpo_options and so on."""
        return cls._create("online_dpo", (policy, reference, reward, prompts), policy.handle,
                           None if reference is None else reference.handle, reward.handle,
                           prompts.handle, _ref(_options("prefopt_dpo_options", dpo or {})),
                           _ref(_sampler_options(sampler or {})),
                           _ref(_options("prefopt_ranker_options", ranker or {})),
                           _ref(_options("prefopt_round_options", rounds or {})), **options)

    def _checked(self, status):
        if self._failures:
            raise self._failures.pop()
        if self._collective is not None and self._collective.failures:
            raise self._collective.failures.pop()
        return check(status)

    def run(self, n_steps):
        """Takes steps; the last progress, with .stopped."""
        last = _struct("prefopt_progress")
        status = self._checked(lib.prefopt_trainer_run(self.handle, n_steps, _ref(last)))
        return types.SimpleNamespace(**vars(_result(last)), stopped=status == 1)

    def step(self):
        """Steps taken since the trainer was made."""
        out = ctypes.c_int64()
        check(lib.prefopt_trainer_step(self.handle, ctypes.addressof(out)))
        return out.value

    def set_evaluation(self, held_out, reference=None, **options):
        """Held-out data for run to evaluate; options as in prefopt_evaluation_options."""
        self._checked(lib.prefopt_trainer_set_evaluation(
            self.handle, held_out.handle, None if reference is None else reference.handle,
            _ref(_options("prefopt_evaluation_options", options))))

    def restore_best(self):
        """Gives the model the parameters of the least held-out loss."""
        check(lib.prefopt_trainer_restore_best(self.handle))

    def fit(self):
        """Goes to the optimum; the last progress, with .stopped."""
        last = _struct("prefopt_progress")
        status = self._checked(lib.prefopt_trainer_fit(self.handle, _ref(last)))
        return types.SimpleNamespace(**vars(_result(last)), stopped=status == 1)

    def loss(self):
        out = ctypes.c_double()
        check(lib.prefopt_trainer_loss(self.handle, ctypes.addressof(out)))
        return out.value

    def save(self, directory, **options):
        """Saves directory/step-000000123; options as in prefopt_save_options (keep=3)."""
        check(lib.prefopt_trainer_save(self.handle, os.fsencode(directory),
                                       _ref(_options("prefopt_save_options", options))))

    def restore(self, directory):
        """Goes on from the newest checkpoint in the directory, or from the one that it is."""
        check(lib.prefopt_trainer_restore(self.handle, os.fsencode(directory)))

    def log_tie(self):
        out = ctypes.c_double()
        check(lib.prefopt_trainer_log_tie(self.handle, ctypes.addressof(out)))
        return out.value


def latest_checkpoint(directory):
    """(step, path) of the newest checkpoint of a trainer in the directory; None when there is none."""
    step, needed = ctypes.c_int64(), ctypes.c_int64()
    name = os.fsencode(directory)
    room = ctypes.create_string_buffer(len(name) + 64)
    check(lib.prefopt_checkpoint_latest(name, ctypes.addressof(step), ctypes.addressof(room),
                                        len(room), ctypes.addressof(needed)))
    return None if step.value < 0 else (step.value, os.fsdecode(room.value))


# ---------------------------------------------------------------- reports
def report_coverage(data, policy, reference, reward=None, beta=0.0):
    """(numbers, dataset of the uncovered completions): lecture 22.3."""
    out, uncovered = _struct("prefopt_coverage"), ctypes.c_void_p()
    check(lib.prefopt_report_coverage(_ref(out), ctypes.addressof(uncovered), data.handle, policy.handle,
                                      reference.handle, None if reward is None else reward.handle, beta))
    return _result(out), Dataset(uncovered.value)


def report_displacement(pairs, before, after):
    out = _struct("prefopt_displacement")
    check(lib.prefopt_report_displacement(_ref(out), pairs.handle, before.handle, after.handle))
    return _result(out)


def report_kl(policy, reference, prompts, n_samples=0, seed=0):
    out = _struct("prefopt_kl_summary")
    check(lib.prefopt_report_kl(_ref(out), policy.handle, reference.handle, prompts.handle, n_samples,
                                seed))
    return _result(out)


def report_objective(policy, reference, reward, prompts, beta):
    out = _struct("prefopt_objective")
    check(lib.prefopt_report_objective(_ref(out), policy.handle, reference.handle, reward.handle,
                                       prompts.handle, beta))
    return _result(out)


def report_equivalence(pairs, policy, reference, reward, beta):
    """With log_z, one a distinct prompt in order of first appearance."""
    log_z = np.full(len(pairs), np.nan)
    out = _struct("prefopt_equivalence")
    check(lib.prefopt_report_equivalence(_ref(out), _pointer(log_z), log_z.size, pairs.handle,
                                         policy.handle, reference.handle, reward.handle, beta))
    return _result(out, log_z=log_z[~np.isnan(log_z)])


def report_preference_fit(reward, pairs):
    out = _struct("prefopt_preference_fit")
    check(lib.prefopt_report_preference_fit(_ref(out), reward.handle, pairs.handle))
    return _result(out)


def report_best_of_n(policy, judge, truth, prompts, n):
    """(true reward, KL), one for each n."""
    n = _array(n, np.int64, "n")
    reward, kl = np.empty(n.size), np.empty(n.size)
    check(lib.prefopt_report_best_of_n(policy.handle, judge.handle, truth.handle, prompts.handle, n.size,
                                       _pointer(n), _pointer(reward), _pointer(kl)))
    return reward, kl


def report_fragility(n_items, first, second, weight=None, label=None, *, max_share=0.1, context=None,
                     **options):
    """The fewest comparisons whose removal changes who is first, with the weight taken by row."""
    data = _comparisons(n_items, first, second, weight, label)
    context, removed, out = context or Context(), np.empty(data.n), _struct("prefopt_fragility")
    check(lib.prefopt_report_fragility(_ref(out), _pointer(removed), context.handle, _ref(data),
                                       _ref(_strengths_options(options, n_items)), max_share))
    return _result(out, removed=removed)


# ---------------------------------------------------------------- draws, scalars
def random_uniform(seed, stream, first, n):
    out = np.empty(n)
    check(lib.prefopt_random_uniform(seed, stream, first, n, _pointer(out)))
    return out


def random_normal(seed, stream, first, n):
    out = np.empty(n)
    check(lib.prefopt_random_normal(seed, stream, first, n, _pointer(out)))
    return out
