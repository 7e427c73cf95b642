/* The options and the texts of tune: data alone. */
#include "tune_options.h"

#define FIELD(name) offsetof(tune_options, name)
#define DPO_KIND (TUNE_DPO | TUNE_ONLINE)
#define WITH_DATA (TUNE_TRAINS | TUNE_EVAL | TUNE_COMPARE)
#define SAMPLES (TUNE_SAMPLED | TUNE_COMPARE)
#define EVALUATED (TUNE_SFT | TUNE_PAIRS | TUNE_ONLINE)
#define MOST_WHOLE 9007199254740992.0

/* Name, whose, needed by, kind, field, low, high, choices, default, free, help. */
const tune_option tune_option_table[] = {
    /* files */
    {"--tokenizer", TUNE_INIT, TUNE_INIT, TUNE_FILE, FIELD(tokenizer), 0, 0, 0, 0, 0,
     "tokenizer.json of the new model; it is copied beside the weights"},
    {"--model", TUNE_TRAINS | TUNE_EVAL, TUNE_TRAINS | TUNE_EVAL, TUNE_FILE, FIELD(model), 0, 0, 0,
     0, 0, "folder with config.json, model.safetensors and tokenizer.json"},
    {"--data", WITH_DATA, WITH_DATA, TUNE_FILE, FIELD(data), 0, 0, 0, 0, 0,
     "JSON Lines of text, compressed with gzip or not"},
    {"--out", TUNE_INIT | TUNE_TRAINS, TUNE_INIT | TUNE_TRAINS, TUNE_FILE, FIELD(out), 0, 0, 0, 0,
     1, "folder for what becomes of it; made where it is not there"},
    {"--reward", SAMPLES, SAMPLES, TUNE_FILE, FIELD(reward), 0, 0, 0, 0, 0,
     "folder of the reward model that scores (made by tune reward)"},
    {"--start", DPO_KIND | TUNE_PG, 0, TUNE_FILE, FIELD(start), 0, 0, 0, 0, 0,
     "folder with the weights to start from; the reference stays --model"},
    {"--reference", TUNE_EVAL, 0, TUNE_FILE, FIELD(reference), 0, 0, 0, 0, 0,
     "folder of a reference: adds DPO's own reward, beta log(policy / reference)"},
    {"--eval-data", EVALUATED, 0, TUNE_FILE, FIELD(eval_data), 0, 0, 0, 0, 0,
     "held-out rows, in a file like --data (online: with pairs)"},
    {"--config", TUNE_INIT | TUNE_TRAINS, 0, TUNE_FILE, FIELD(config), 0, 0, 0, 0, 1,
     "config_echo.json of another run: its options, unless they are given here"},
    {"--json", TUNE_EVAL | TUNE_COMPARE, 0, TUNE_TEXT, FIELD(json), 0, 0, 0, 0, 1,
     "file for the numbers as JSON"},
    /* a new model */
    {"--layers", TUNE_INIT, 0, TUNE_WHOLE, FIELD(layers), 1, 1000, 0, "2", 0, "transformer layers"},
    {"--width", TUNE_INIT, 0, TUNE_WHOLE, FIELD(width), 1, 1e6, 0, "128", 0,
     "numbers a token; a multiple of --heads"},
    {"--heads", TUNE_INIT, 0, TUNE_WHOLE, FIELD(heads), 1, 1e6, 0, "4", 0, "attention heads"},
    {"--ff-width", TUNE_INIT, 0, TUNE_WHOLE, FIELD(ff_width), 0, 1e9, 0, "0", 0,
     "inner layer of the MLPs (0: four times the width)"},
    {"--positions", TUNE_INIT, 0, TUNE_WHOLE, FIELD(positions), 2, 1e9, 0, "2048", 0,
     "tokens of the longest sequence"},
    {"--vocab", TUNE_INIT, 0, TUNE_WHOLE, FIELD(vocab), 0, 2147483647, 0, "0", 0,
     "tokens of the model (0: as many as the tokenizer has)"},
    {"--tied", TUNE_INIT, 0, TUNE_FLAG, FIELD(tied), 0, 0, 0, "0", 0,
     "the output matrix is the embedding"},
    {"--init-scale", TUNE_INIT, 0, TUNE_NUMBER, FIELD(init_scale), 0, 10, 0, "0.02", 0,
     "standard deviation of the weights"},
    {"--eos", TUNE_INIT, 0, TUNE_TEXT, FIELD(eos), 0, 0, 0, 0, 0,
     "text of the token that ends a text, where it has no usual name"},
    /* steps */
    {"--steps", TUNE_TRAINS, 0, TUNE_WHOLE, FIELD(steps), 1, 1e12, 0, "200", 0, "optimiser steps"},
    {"--batch", TUNE_TRAINS, 0, TUNE_WHOLE, FIELD(batch), 1, 1e9, 0, "8", 0,
     "rows (online, pg: prompts) a step"},
    {"--micro-batch", TUNE_TRAINS, 0, TUNE_WHOLE, FIELD(micro_batch), 0, 1e9, 0, "0", 0,
     "rows scored at once, for less memory (0: as many as fit)"},
    {"--lr", TUNE_SFT | TUNE_REWARD, 0, TUNE_NUMBER, FIELD(lr), 1e-12, 10, 0, "1e-4", 0,
     "learning rate of AdamW; small new models take 1e-3 and more"},
    {"--lr", DPO_KIND | TUNE_PG, 0, TUNE_NUMBER, FIELD(lr), 1e-12, 10, 0, "1e-5", 0,
     "learning rate of AdamW; small models take 1e-4 and more"},
    {"--warmup", TUNE_TRAINS, 0, TUNE_WHOLE, FIELD(warmup), 0, 1e12, 0, "0", 0,
     "first steps, over which the rate rises from 0"},
    {"--schedule", TUNE_TRAINS, 0, TUNE_CHOICE, FIELD(schedule), 0, 0, "constant linear cosine",
     "constant", 0, "of the rate after them"},
    {"--final-fraction", TUNE_TRAINS, 0, TUNE_NUMBER, FIELD(final_fraction), 0, 1, 0, "0", 0,
     "of the rate, where linear and cosine end"},
    {"--clip", TUNE_TRAINS, 0, TUNE_NUMBER, FIELD(clip), 0, 1e12, 0, "1", 0,
     "the gradient is scaled down to this norm (0: off)"},
    {"--weight-decay", TUNE_TRAINS, 0, TUNE_NUMBER, FIELD(weight_decay), 0, 10, 0, "0", 0,
     "of AdamW; norms and biases are spared"},
    {"--decay-vectors", TUNE_TRAINS, 0, TUNE_FLAG, FIELD(decay_vectors), 0, 0, 0, "0", 0,
     "norms and biases decay too"},
    {"--seed", TUNE_TRAINS | TUNE_INIT | TUNE_COMPARE, 0, TUNE_WHOLE, FIELD(seed), 0, MOST_WHOLE, 0,
     "0", 0, "of the weights (init), the order of the rows, the samples"},
    /* the loss */
    {"--beta", DPO_KIND | TUNE_EVAL, 0, TUNE_NUMBER, FIELD(beta), 1e-9, 1e9, 0, "0.1", 0,
     "strength of the pull towards the reference"},
    {"--beta", TUNE_PG, 0, TUNE_NUMBER, FIELD(beta), 0, 1e9, 0, "0.05", 0,
     "weight of KL(policy || reference); 0: none"},
    {"--variant", DPO_KIND, 0, TUNE_CHOICE, FIELD(variant), 0, 0,
     "sigmoid hinge ipo ipo_sum robust exo nca bco sppo aot aot_unpaired apo_zero apo_down "
     "discopop "
     "sigmoid_norm simpo cpo orpo dpop",
     "sigmoid", 0, "of the DPO family"},
    {"--label-smoothing", DPO_KIND, 0, TUNE_NUMBER, FIELD(label_smoothing), 0, 1, 0, "0", 0,
     "share of labels taken to be wrong"},
    {"--gamma", DPO_KIND, 0, TUNE_NUMBER, FIELD(gamma), -1e9, 1e9, 0, "0.5", 0, "of simpo"},
    {"--delta", DPO_KIND, 0, TUNE_NUMBER, FIELD(delta), -1e9, 1e9, 0, "0", 0, "of bco"},
    {"--tau", DPO_KIND, 0, TUNE_NUMBER, FIELD(tau), 1e-9, 1e9, 0, "0.05", 0, "of discopop"},
    {"--lambda", DPO_KIND, 0, TUNE_NUMBER, FIELD(lambda), 0, 1e9, 0, "5", 0, "of dpop"},
    {"--divergence", DPO_KIND, 0, TUNE_CHOICE, FIELD(divergence), 0, 0,
     "reverse_kl forward_kl jensen_shannon alpha", "reverse_kl", 0, "from the reference"},
    {"--centre", TUNE_REWARD, 0, TUNE_NUMBER, FIELD(centre), 0, 1e9, 0, "0", 0,
     "adds so many times (chosen + rejected)^2: keeps scores around 0"},
    {"--tie-model", TUNE_REWARD, 0, TUNE_CHOICE, FIELD(tie_model), 0, 0, "none davidson rao_kupper",
     "none", 0, "for pairs with label 0.5"},
    /* sampling */
    {"--samples", TUNE_SAMPLED, 0, TUNE_WHOLE, FIELD(samples), 2, 1e6, 0, "4", 0,
     "completions a prompt"},
    {"--samples", TUNE_COMPARE, 0, TUNE_WHOLE, FIELD(samples), 1, 1e6, 0, "1", 0,
     "completions a prompt, of each"},
    {"--max-new", SAMPLES, 0, TUNE_WHOLE, FIELD(max_new), 1, 1e9, 0, "64", 0,
     "tokens of a sampled completion"},
    {"--temperature", SAMPLES, 0, TUNE_NUMBER, FIELD(temperature), 0, 1e6, 0, "1", 0,
     "of the sampling; 0 (compare): the likeliest token each time"},
    {"--top-k", SAMPLES, 0, TUNE_WHOLE, FIELD(top_k), 0, 2e9, 0, "0", 0,
     "among the K likeliest tokens alone (0: all)"},
    {"--top-p", SAMPLES, 0, TUNE_NUMBER, FIELD(top_p), 1e-9, 1, 0, "1", 0,
     "among the likeliest up to this mass"},
    {"--rule", TUNE_ONLINE, 0, TUNE_CHOICE, FIELD(rule), 0, 0,
     "top_bottom best_each all best_mean_2sd random best_random", "top_bottom", 0,
     "which completions of a prompt make pairs"},
    {"--ties", TUNE_ONLINE, 0, TUNE_CHOICE, FIELD(ties), 0, 0, "drop first half", "drop", 0,
     "pairs of equal scores"},
    {"--soft-labels", TUNE_ONLINE, 0, TUNE_FLAG, FIELD(soft_labels), 0, 0, 0, "0", 0,
     "label sigma(score difference) instead of 1"},
    {"--soft-scale", TUNE_ONLINE, 0, TUNE_NUMBER, FIELD(soft_scale), 1e-9, 1e9, 0, "1", 0,
     "times the difference, with --soft-labels"},
    {"--margin-floor", TUNE_ONLINE, 0, TUNE_NUMBER, FIELD(margin_floor), 0, 1e9, 0, "0", 0,
     "pairs whose scores differ by less are dropped"},
    {"--baseline", TUNE_PG, 0, TUNE_CHOICE, FIELD(baseline), 0, 0,
     "none mean leave_one_out group_norm", "leave_one_out", 0, "taken from the rewards"},
    {"--kl-in", TUNE_PG, 0, TUNE_CHOICE, FIELD(kl_in), 0, 0, "reward loss", "reward", 0,
     "where the KL has its place"},
    {"--kl-estimator", TUNE_PG, 0, TUNE_CHOICE, FIELD(kl_estimator), 0, 0, "k1 k2 k3", "k1", 0,
     "of the KL in the loss, and of the one reported"},
    {"--clip-low", TUNE_PG, 0, TUNE_NUMBER, FIELD(clip_low), 0, 0.999999, 0, "0", 0,
     "PPO's clip of the ratio, below 1 (both 0: none)"},
    {"--round-prompts", TUNE_SAMPLED, 0, TUNE_WHOLE, FIELD(round_prompts), 0, 1e9, 0, "0", 0,
     "prompts sampled a round (0: --batch)"},
    {"--round-steps", TUNE_SAMPLED, 0, TUNE_WHOLE, FIELD(round_steps), 1, 1e12, 0, "1", 0,
     "steps on the samples of a round; as many as --steps: one round"},
    {"--refresh", TUNE_SAMPLED, 0, TUNE_WHOLE, FIELD(refresh), 0, 1e12, 0, "0", 0,
     "rounds after which the reference becomes the policy (0: never)"},
    {"--missing-end-penalty", TUNE_SAMPLED, 0, TUNE_NUMBER, FIELD(missing_end), 0, 1e9, 0, "0", 0,
     "taken from the score of a completion that does not end"},
    {"--reward-scale", TUNE_PG, 0, TUNE_CHOICE, FIELD(reward_scale), 0, 0, "none round running",
     "none", 0, "rewards by mean and deviation of the round, or of all so far"},
    {"--reward-clip", TUNE_PG, 0, TUNE_NUMBER, FIELD(reward_clip), 0, 1e9, 0, "0", 0,
     "rewards between this and its negative (0: off)"},
    {"--clip-high", TUNE_PG, 0, TUNE_NUMBER, FIELD(clip_high), 0, 1e9, 0, "0", 0, "and above"},
    /* rows */
    {"--max-prompt", WITH_DATA, 0, TUNE_WHOLE, FIELD(max_prompt), 0, 1e9, 0, "256", 0,
     "tokens; of a longer prompt the end is kept (0: no limit)"},
    {"--max-completion", TUNE_SFT | TUNE_PAIRS | TUNE_EVAL, 0, TUNE_WHOLE, FIELD(max_completion), 0,
     1e9, 0, "256", 0, "tokens; of a longer completion the beginning is kept (0: no limit)"},
    {"--limit", WITH_DATA, 0, TUNE_WHOLE, FIELD(limit), 0, 1e15, 0, "0", 0,
     "rows from the start of the file (0: all)"},
    {"--whole-text", TUNE_SFT, 0, TUNE_FLAG, FIELD(whole_text), 0, 0, 0, "0", 0,
     "learns the prompts too: for a model from scratch"},
    /* evaluation */
    {"--eval-fraction", TUNE_SFT | TUNE_PAIRS, 0, TUNE_NUMBER, FIELD(eval_fraction), 0, 0.9, 0, "0",
     0, "of the prompts of --data, held out with all their rows"},
    {"--eval-every", EVALUATED, 0, TUNE_WHOLE, FIELD(eval_every), 0, 1e12, 0, "0", 0,
     "steps between two evaluations (0: a tenth of the run)"},
    {"--patience", EVALUATED, 0, TUNE_WHOLE, FIELD(patience), 0, 1e12, 0, "0", 0,
     "stops after so many evaluations without a lower loss (0: never)"},
    {"--min-delta", EVALUATED, 0, TUNE_NUMBER, FIELD(min_delta), 0, 1e9, 0, "0", 0,
     "nats by which it has to be lower"},
    {"--final", EVALUATED, 0, TUNE_CHOICE, FIELD(final), 0, 0, "best last", "best", 0,
     "which weights --out holds: of the lowest held-out loss, or the last"},
    /* running */
    {"--save-every", TUNE_TRAINS, 0, TUNE_WHOLE, FIELD(save_every), 0, 1e12, 0, "0", 1,
     "steps between two checkpoints to go on from (0: a tenth of the run)"},
    {"--keep", TUNE_TRAINS, 0, TUNE_WHOLE, FIELD(keep), 0, 1e9, 0, "2", 1,
     "so many of the newest of them stay (0: all)"},
    {"--log-every", TUNE_TRAINS, 0, TUNE_WHOLE, FIELD(log_every), 1, 1e12, 0, "1", 0,
     "steps between two lines of metrics.jsonl"},
    {"--threads", TUNE_TRAINS | TUNE_EVAL | TUNE_COMPARE, 0, TUNE_WHOLE, FIELD(threads), 0, 1024, 0,
     "0", 1, "0: the cores there are; the result is the same for any number"},
    {"--memory", TUNE_TRAINS | TUNE_EVAL | TUNE_COMPARE, 0, TUNE_WHOLE, FIELD(memory), 1, 1e9, 0,
     "1024", 0, "MiB beside the weights; larger batches go in parts"},
    {0}};

const tune_command tune_command_table[] = {
    {"init", TUNE_INIT, 0, "a small random model, for who has no checkpoint",
     "tune init --tokenizer tokenizer.json --out DIR [options]\n"
     "\n"
     "Writes a GPT-NeoX model with random weights and its tokenizer to DIR. Its text is noise "
     "until\n"
     "tune sft has trained it, best with --whole-text and a learning rate of 1e-3.\n"},
    {"sft", TUNE_SFT, 0, "supervised fine-tuning: the likelihood of good completions",
     "tune sft --model DIR --data FILE --out DIR [options]\n"
     "\n"
     "Raises the log-probability of completions given their prompts. Lines of FILE, any of:\n"
     "  {\"prompt\":\"2 + 2 =\",\"completion\":\" 4\"}\n"
     "  {\"prompt\":\"2 + 2 =\",\"chosen\":\" 4\",\"rejected\":\" 5\"}     the chosen one is "
     "learnt\n"
     "The loss is nats a completion; loss_per_token is beside it in metrics.jsonl.\n"},
    {"reward", TUNE_REWARD, 0, "a reward model from preference pairs (Bradley-Terry)",
     "tune reward --model DIR --data FILE --out DIR [options]\n"
     "\n"
     "Takes a language model (best after tune sft), puts a linear head in place of its softmax, "
     "and\n"
     "trains P(chosen before rejected) = sigma(score of chosen - score of rejected). --model may "
     "also\n"
     "be a reward model, which is then trained on. Lines of FILE:\n"
     "  {\"prompt\":\"2 + 2 =\",\"chosen\":\" 4\",\"rejected\":\" 5\"}     \"weight\", \"label\", "
     "\"margin\" if wanted\n"
     "At first every score is 0 and the loss log 2 = 0.6931: below it, something is learnt.\n"},
    {"dpo", TUNE_DPO, 0, "direct preference optimisation, on the pairs as they are",
     "tune dpo --model DIR --data FILE --out DIR [options]\n"
     "\n"
     "Trains the policy so that beta log(policy / reference) prefers what was chosen; the "
     "reference "
     "is\n"
     "--model as it is at first. Lines of FILE:\n"
     "  {\"prompt\":\"2 + 2 =\",\"chosen\":\" 4\",\"rejected\":\" 5\"}     \"weight\", \"label\", "
     "\"margin\" if wanted\n"
     "At first margin is 0 and loss log 2 = 0.6931. Watch logps/chosen in metrics.jsonl: both "
     "sides\n"
     "often fall; a smaller --lr, a larger --beta or --variant dpop hold the chosen one up.\n"},
    {"online", TUNE_ONLINE, 0, "online DPO: on pairs that a reward model makes of fresh samples",
     "tune online --model DIR --reward DIR --data FILE --out DIR [options]\n"
     "\n"
     "Each step draws --samples completions for a batch of prompts, ranks them by the reward "
     "model,\n"
     "makes pairs by --rule, and takes a DPO step on them. Of FILE the prompts alone count (lines "
     "as\n"
     "for dpo, or {\"prompt\":\"...\"}), each distinct one once.\n"
     "Watch objective/scores (the reward: it should rise) and objective/kl (the price).\n"},
    {"pg", TUNE_PG, 0, "policy gradient: REINFORCE with leave-one-out baseline, PPO's clip",
     "tune pg --model DIR --reward DIR --data FILE --out DIR [options]\n"
     "\n"
     "Each step draws --samples completions for a batch of prompts, scores them by the reward "
     "model and\n"
     "climbs E[reward] - beta KL(policy || reference). Of FILE the prompts alone count, each "
     "distinct\n"
     "one once. Watch objective/scores (it should rise) and objective/kl (the price).\n"},
    {"eval", TUNE_EVAL, 0, "how well a checkpoint tells the better text of a pair",
     "tune eval --model DIR --data FILE [options]\n"
     "\n"
     "Of a language model: log-probability of chosen and rejected, and how often the chosen one "
     "has\n"
     "the higher one, by sum and by mean of the tokens; with --reference also by DPO's own reward. "
     "Of\n"
     "a reward model: how often the chosen one scores higher, and the likelihood of the "
     "preferences.\n"
     "Everything with a 95 % interval; beside it what always taking the longer one would get.\n"},
    {"compare", TUNE_COMPARE, 2, "who wins under a reward model, with an interval",
     "tune compare A B --data FILE --reward DIR [options]\n"
     "\n"
     "A and B are folders of language models. Both answer each distinct prompt of FILE --samples\n"
     "times; the reward model scores, and of each two answers the higher score wins (equal ones "
     "half).\n"
     "The win rate of A stands with a 95 % interval over the prompts, beside mean scores and "
     "lengths.\n"},
    {0}};

const char tune_overview[] =
    "tune: preferences into language models, from text pairs to a tuned checkpoint\n"
    "\n"
    "  tune COMMAND --help     what it does, each option with its default\n"
    "\n"
    "commands:\n"
    "%s"
    "\n"
    "One road and the other, from nothing:\n"
    "  tune init   --tokenizer tokenizer.json --layers 2 --width 128 --heads 4 --out base\n"
    "  tune sft    --model base --data pairs.jsonl.gz --out sft --whole-text --lr 1e-3\n"
    "  tune dpo    --model sft --data pairs.jsonl.gz --out dpo --lr 1e-4\n"
    "  tune reward --model sft --data pairs.jsonl.gz --out reward --eval-fraction 0.1\n"
    "  tune online --model sft --reward reward --data pairs.jsonl.gz --out online --lr 1e-4\n"
    "  tune pg     --model sft --reward reward --data pairs.jsonl.gz --out pg --lr 1e-4\n"
    "  tune eval   --model reward --data pairs.jsonl.gz\n"
    "  tune compare online sft --reward reward --data pairs.jsonl.gz\n"
    "\n"
    "A run's folder holds the tuned checkpoint, loadable as it is, metrics.jsonl (a line a step),\n"
    "curves.svg and config_echo.json, from which --config repeats it. Ctrl-C saves and ends; the "
    "same\n"
    "command again goes on from the last save, also after a crash, and ends with the same bits.\n";
