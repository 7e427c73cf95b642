/* Internal face of saving: how a part of a trainer tells what it is made of and what its next step
 * depends on, and takes that back.
 *
 * A checkpoint is a folder step-000000123 (docs/checkpoints.md):
 *     trainer.json             what the run is, and numbers and hashes of its state
 *     optimiser.safetensors    arrays: moments; a model's parameters, where it is no transformer
 * ... config.json, model.safetensors    the model, where it is a transformer NAME.jsonl datasets
 *
 * Names are given the prefix of who saves, "dpo." or "evaluation.": they need to be unique within
 * that alone. */
#ifndef PF_SAVED_H
#define PF_SAVED_H

#include "model/pf_own_folder.h"
#include "prefopt/policy_gradient.h"
#include "train/pf_train.h"

#define PF_TRAINER_NAME "trainer.json"
#define PF_ARRAYS_NAME "optimiser.safetensors"
#define PF_TRAINER_FORMAT "prefopt-trainer"
#define PF_TRAINER_PREFIX ".trainer" /* of the folders that saves build in */
enum {
    PF_TRAINER_VERSION = 1,
    PF_TRAINER_MOST = 1 << 20, /* bytes of trainer.json */
    PF_SAVED_NAME = 64,
    PF_STEP_NAME = 32
};

/* ---- what a run is: the same at every save, and told again by who goes on (trainer_describe.c)
 *
 * Failures are remembered. */
struct pf_describe {
    void *fields; /* json_t, an object */
    const char *prefix;
    bool failed; /* no memory */
};

enum pf_field_type { PF_FIELD_I32, PF_FIELD_U32, PF_FIELD_I64, PF_FIELD_U64, PF_FIELD_F64 };
typedef struct {
    const char *name;
    int32_t type; /* pf_field_type */
    uint32_t offset;
} pf_field;
#define PF_FIELD(struct_type, field)                                                               \
    {                                                                                              \
#field,                                                                                    \
            _Generic(((struct_type *)0)->field, int32_t                                            \
                     : PF_FIELD_I32, uint32_t                                                      \
                     : PF_FIELD_U32, int64_t                                                       \
                     : PF_FIELD_I64, uint64_t                                                      \
                     : PF_FIELD_U64, double                                                        \
                     : PF_FIELD_F64),                                                              \
            offsetof(struct_type, field)                                                           \
    }

void pf_describe_i64(pf_describe *to, const char *name, int64_t value);
void pf_describe_u64(pf_describe *to, const char *name, uint64_t value);
void pf_describe_f64(pf_describe *to, const char *name, double value);
void pf_describe_text(pf_describe *to, const char *name, const char *value);
void pf_describe_bytes(pf_describe *to, const char *name, const void *bytes, int64_t n);
/* n numbers known but for rounding (another machine's may differ in the last bits). */
void pf_describe_about(pf_describe *to, const char *name, const double *values, int64_t n);
void pf_describe_fields(pf_describe *to, const pf_field *fields, size_t n_fields,
                        const void *values);

/* The structs that several files have. */
void pf_describe_dpo(pf_describe *to, const prefopt_dpo_options *options);
void pf_describe_pg(pf_describe *to, const prefopt_pg_options *options);
void pf_describe_sampler(pf_describe *to, const prefopt_sampler_options *options);
void pf_describe_ranker(pf_describe *to, const prefopt_ranker_options *options);

/* All that describes the trainer; to->fields is the caller's, also after a failure. */
int32_t pf_trainer_describe(const prefopt_trainer *trainer, pf_describe *to);
void pf_describe_clear(pf_describe *describe);
/* STATE that names the first field of another value in `fields` (json_t), and both values; where:
 * whose those are. Only where there is JSON. (trainer_restore.c) */
int32_t pf_describe_compare(const char *where, void *fields, const pf_describe *own);

/* Hash of the rows that training sees; of the prompts of a dataset. (trainer_describe.c) */
uint64_t pf_rows_hash(const pf_rows *rows);
int32_t pf_prompts_hash(prefopt_context *context, const prefopt_dataset *prompts, uint64_t *hash);
/* Hash of all that a JSON Lines file keeps of a dataset. */
int32_t pf_dataset_hash(prefopt_context *context, const prefopt_dataset *data, uint64_t *hash);

/* ---- what the next step depends on: writing (trainer_state.c)
 *
 * What is handed over is borrowed until the save is over. */
enum { PF_SAVED_ARRAYS = 24, PF_SAVED_DATASETS = 4 };
struct pf_save {
    prefopt_context *context;
    const char *prefix;
    void *numbers, *hashes, *datasets; /* json_t, objects by name */
    int64_t n_arrays, n_datasets;
    pf_array arrays[PF_SAVED_ARRAYS];
    const prefopt_dataset *dataset[PF_SAVED_DATASETS];
    char array_name[PF_SAVED_ARRAYS][PF_SAVED_NAME], dataset_name[PF_SAVED_DATASETS][PF_SAVED_NAME];
};

int32_t pf_save_i64(pf_save *to, const char *name, int64_t value);
int32_t pf_save_f64(pf_save *to, const char *name, double value); /* infinities and NaN too */
int32_t pf_save_array(pf_save *to, const char *name, int32_t dtype, int64_t n, const void *value);
int32_t pf_save_dataset(pf_save *to, const char *name, const prefopt_dataset *data);
/* The parameters of a frozen policy. UNSUPPORTED where it shows none. */
int32_t pf_save_reference(pf_save *to, const char *name, const prefopt_reference *reference);

/* All of the trainer's; to be cleared whether it fails or not. */
int32_t pf_trainer_state(const prefopt_trainer *trainer, pf_save *to);
void pf_save_clear(pf_save *save);

/* ---- the same: reading (trainer_state_read.c)
 *
 * A name that is not there, or not of that kind or size, is FORMAT that names file and field. */
struct pf_saved {
    prefopt_context *context;
    const char *prefix;
    char *folder, *trainer_path, *arrays_path; /* owned */
    int descriptor;                            /* of the folder */
    void *root;                                /* json_t, and what it has under these names */
    void *run, *numbers, *hashes, *datasets;
    pf_safetensors arrays;
};

bool pf_saved_has(const pf_saved *from, const char *name); /* of any kind */
int32_t pf_saved_i64(const pf_saved *from, const char *name, int64_t *value);
int32_t pf_saved_f64(const pf_saved *from, const char *name, double *value);
/* n values of that type; they were checked against their hash when the file was opened. */
int32_t pf_saved_array(const pf_saved *from, const char *name, int32_t dtype, int64_t n,
                       void *value);
/* The same in place, in the file's memory, at an address that may be odd. */
int32_t pf_saved_bytes(const pf_saved *from, const char *name, int32_t dtype, int64_t n,
                       const void **value);
/* The transformer's parameters [shape->n]; on failure that holds anything. */
int32_t pf_saved_model(const pf_saved *from, const pf_shape *shape, float *value);
/* *out is the caller's. */
int32_t pf_saved_dataset(const pf_saved *from, const char *name, prefopt_dataset **out);
/* A frozen copy of `like` with the parameters that were saved; the caller's. */
int32_t pf_saved_reference(const pf_saved *from, const char *name, const prefopt_policy *like,
                           prefopt_reference **out);

/* Opens the checkpoint folder and checks every array against its hash. IO, FORMAT, MEMORY. On
 * failure nothing is open. */
int32_t pf_saved_open(pf_saved *from, prefopt_context *context, const char *folder);
void pf_saved_close(pf_saved *from);

/* ---- the folders of a directory (trainer_folders.c) */

void pf_step_name(char out[PF_STEP_NAME], int64_t step); /* step-000000123 */
/* The step of a name as pf_step_name makes it; -1: none. */
int64_t pf_step_of(const char *name);
/* The newest checkpoint of a directory, -1: none (or no such directory). IO. */
int32_t pf_newest_step(const char *directory, int64_t *step);
/* The run that the checkpoint of this step says it is of, 16 hexadecimal digits; "": it is none of
 * a trainer. MEMORY. */
int32_t pf_step_run(prefopt_context *context, int directory, const char *name, char run[17]);
/* Removes the run's checkpoints but the newest `keep` and the two steps named (-1: none). */
void pf_steps_prune(prefopt_context *context, const char *directory, const char *run, int64_t keep,
                    int64_t written, int64_t best);

#endif
