/* The collective of prefopt/train.h on an MPI communicator. Uses the public headers alone, and
 * calls nothing of libprefopt. */
#include "prefopt/mpi.h"

#include <stdio.h>
#include <stdlib.h>

/* Elements of one MPI call: counts are ints, and MPI's buffers grow with them. */
enum { CHUNK = 1 << 22, ERROR_TEXT_SIZE = 1024 };

struct prefopt_mpi {
    MPI_Comm comm;
    prefopt_collective collective;
};

static _Thread_local char error_text[ERROR_TEXT_SIZE];

const char *prefopt_mpi_last_error(void) { return error_text; }

static int32_t fail(int32_t code, const char *text)
{
    snprintf(error_text, sizeof error_text, "%s", text);
    return code;
}

static int32_t mpi_failed(const char *call, int error)
{
    char text[MPI_MAX_ERROR_STRING] = "";
    int n = 0;
    if (MPI_Error_string(error, text, &n) != MPI_SUCCESS)
        text[0] = '\0';
    snprintf(error_text, sizeof error_text, "%s: %s", call, text);
    return PREFOPT_ERR_CALLBACK;
}

/* ---- the callbacks */

static int32_t sum(MPI_Comm comm, char *values, int64_t n, size_t size, MPI_Datatype type)
{
    for (int64_t first = 0; first < n; first += CHUNK) {
        int count = n - first < CHUNK ? (int)(n - first) : CHUNK;
        int error =
            MPI_Allreduce(MPI_IN_PLACE, values + (size_t)first * size, count, type, MPI_SUM, comm);
        if (error != MPI_SUCCESS)
            return mpi_failed("MPI_Allreduce", error);
    }
    return PREFOPT_OK;
}

static int32_t sum_f32(void *payload, float *values, int64_t n)
{
    return sum(((prefopt_mpi *)payload)->comm, (char *)values, n, sizeof *values, MPI_FLOAT);
}

static int32_t sum_f64(void *payload, double *values, int64_t n)
{
    return sum(((prefopt_mpi *)payload)->comm, (char *)values, n, sizeof *values, MPI_DOUBLE);
}

static int32_t broadcast(void *payload, void *bytes, int64_t n_bytes, int64_t root)
{
    const prefopt_mpi *mpi = payload;
    for (int64_t first = 0; first < n_bytes; first += CHUNK) {
        int count = n_bytes - first < CHUNK ? (int)(n_bytes - first) : CHUNK;
        int error = MPI_Bcast((char *)bytes + first, count, MPI_BYTE, (int)root, mpi->comm);
        if (error != MPI_SUCCESS)
            return mpi_failed("MPI_Bcast", error);
    }
    return PREFOPT_OK;
}

/* ---- the handle */

static int32_t check_comm(MPI_Comm comm)
{
    int initialised = 0, finalised = 0, inter = 0;
    MPI_Initialized(&initialised);
    MPI_Finalized(&finalised);
    if (!initialised || finalised)
        return fail(PREFOPT_ERR_STATE, initialised
                                           ? "MPI is finalised, expected before MPI_Finalize"
                                           : "MPI is not initialised, expected after MPI_Init");
    if (comm == MPI_COMM_NULL)
        return fail(PREFOPT_ERR_ARGUMENT, "comm is MPI_COMM_NULL");
    int error = MPI_Comm_test_inter(comm, &inter);
    if (error != MPI_SUCCESS)
        return mpi_failed("MPI_Comm_test_inter", error);
    return inter ? fail(PREFOPT_ERR_ARGUMENT,
                        "comm is an intercommunicator, expected one whose ranks are one group")
                 : PREFOPT_OK;
}

int32_t prefopt_mpi_create(prefopt_mpi **out, MPI_Comm comm)
{
    if (out == NULL)
        return fail(PREFOPT_ERR_ARGUMENT, "prefopt_mpi_create: out is NULL");
    int32_t status = check_comm(comm);
    if (status != PREFOPT_OK)
        return status;
    prefopt_mpi *mpi = calloc(1, sizeof *mpi);
    if (mpi == NULL)
        return fail(PREFOPT_ERR_MEMORY, "out of memory");
    int error = MPI_Comm_dup(comm, &mpi->comm);
    if (error != MPI_SUCCESS) {
        free(mpi);
        return mpi_failed("MPI_Comm_dup", error);
    }
    int rank = 0, size = 1;
    MPI_Comm_set_errhandler(mpi->comm, MPI_ERRORS_RETURN);
    MPI_Comm_rank(mpi->comm, &rank);
    MPI_Comm_size(mpi->comm, &size);
    mpi->collective = (prefopt_collective){.struct_size = sizeof mpi->collective,
                                           .rank = rank,
                                           .size = size,
                                           .payload = mpi,
                                           .sum_f32 = sum_f32,
                                           .sum_f64 = sum_f64,
                                           .broadcast = broadcast};
    *out = mpi;
    return PREFOPT_OK;
}

void prefopt_mpi_destroy(prefopt_mpi *mpi)
{
    if (mpi == NULL)
        return;
    MPI_Comm_free(&mpi->comm);
    free(mpi);
}

const prefopt_collective *prefopt_mpi_collective(const prefopt_mpi *mpi)
{
    return mpi != NULL ? &mpi->collective : NULL;
}
