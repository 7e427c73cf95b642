/* prefopt/mpi.h: the ranks of an MPI job train one model together. Of the library prefopt-mpi,
 * apart from libprefopt; not included by prefopt.h.
 *
 *     MPI_Init(&argc, &argv);
 *     prefopt_mpi *mpi;
 *     prefopt_mpi_create(&mpi, MPI_COMM_WORLD);
 *     train.collective = prefopt_mpi_collective(mpi);     options of a trainer
 *     ...                                                 the same on every rank
 *     prefopt_trainer_run(trainer, 1000, &progress);
 *     prefopt_trainer_destroy(trainer);
 *     prefopt_mpi_destroy(mpi);
 *     MPI_Finalize();
 *
 * Files (checkpoints, metrics) are for rank 0 to write; every rank restores. A rank that dies ends
 * the others where the MPI launcher says so, as mpirun does; what was saved until then is whole.
 */
#ifndef PREFOPT_MPI_H
#define PREFOPT_MPI_H

#include <mpi.h>

#include "train.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A communicator of its own, and the collective on it. */
typedef struct prefopt_mpi prefopt_mpi;

/* Duplicates `comm` (collective: all of its ranks call it), so that what trainers send cannot be
 * taken for the program's own. MPI must be initialised; MPI_THREAD_FUNNELED where run is called on
 * the main thread. The caller owns *out.
 * Errors: ARGUMENT (NULL, MPI_COMM_NULL, an intercommunicator), STATE (before MPI_Init or after
 * MPI_Finalize), MEMORY, CALLBACK (MPI failed). Since 0.1. */
PREFOPT_API int32_t prefopt_mpi_create(prefopt_mpi **out, MPI_Comm comm);

/* Collective over the ranks, before MPI_Finalize, and after the last run of the trainers made with
 * it. NULL is fine. Since 0.1. */
PREFOPT_API void prefopt_mpi_destroy(prefopt_mpi *mpi);

/* For prefopt_train_options.collective; mpi's own. Values are summed in place, a few million at a
 * time. NULL for NULL. Thread-safe. Since 0.1. */
PREFOPT_API const prefopt_collective *prefopt_mpi_collective(const prefopt_mpi *mpi);

/* Text of the last failure of prefopt-mpi on this thread, "" when there was none: of the calls
 * here, and what MPI said where a run failed with CALLBACK. Since 0.1. */
PREFOPT_API const char *prefopt_mpi_last_error(void);

#ifdef __cplusplus
}
#endif
#endif
