/* Runs a SavedModel from C.

     ./savedmodel FOLDER                    lists its signatures
     ./savedmodel FOLDER IN.ppm OUT.ppm     reconstructs a picture, and prints its codes

   FOLDER is a version, such as served/doom/1. README.md says how to build this. */

#include "signatures.h"
#include "tensorflow/c/c_api.h"

static void check(TF_Status *status) {
  if (TF_GetCode(status) == TF_OK) return;
  fprintf(stderr, "error %d: %s\n", TF_GetCode(status), TF_Message(status));
  exit(1);
}

static void fail(const char *problem, const char *what) {
  fprintf(stderr, "%s: %s\n", problem, what);
  exit(1);
}

/* The tensor of the graph that is an input or output of a signature. */
static TF_Output find_tensor(TF_Graph *graph, Bytes meta_graph, const char *signature, int side,
                             const char *name) {
  Bytes tensor = get_entry(get_entry(meta_graph, SIGNATURES, signature), side, name);
  Bytes in_graph = get_field(tensor, TENSOR_NAME);
  char operation[1024];
  snprintf(operation, sizeof operation, "%.*s", (int)(in_graph.end - in_graph.at), in_graph.at);
  char *colon = strrchr(operation, ':');
  if (!colon) fail("no such input or output of reconstruct", name);
  *colon = 0;
  return (TF_Output){TF_GraphOperationByName(graph, operation), atoi(colon + 1)};
}

/* A picture as a batch of one: uint8 (1, height, width, 3). The file may hold no comments. */
static TF_Tensor *read_picture(const char *path) {
  FILE *file = fopen(path, "rb");
  long long width, height, most;
  if (!file) fail("cannot be read", path);
  if (fscanf(file, "P6 %lld %lld %lld", &width, &height, &most) != 3 || fgetc(file) == EOF ||
      most != 255 || width < 1 || height < 1 || width > 65535 || height > 65535)
    fail("is no PPM picture (P6, 255)", path);
  int64_t sides[] = {1, height, width, 3};
  size_t size = (size_t)height * width * 3;
  TF_Tensor *picture = TF_AllocateTensor(TF_UINT8, sides, 4, size);
  if (fread(TF_TensorData(picture), 1, size, file) != size) fail("ends too early", path);
  fclose(file);
  return picture;
}

static void write_picture(const char *path, TF_Tensor *picture) {
  if (TF_NumDims(picture) != 4 || TF_Dim(picture, 3) != 3) fail("is no picture in colour", path);
  FILE *file = fopen(path, "wb");
  if (!file) fail("cannot be written", path);
  fprintf(file, "P6\n%lld %lld\n255\n", (long long)TF_Dim(picture, 2),
          (long long)TF_Dim(picture, 1));
  size_t size = TF_TensorByteSize(picture);
  if (fwrite(TF_TensorData(picture), 1, size, file) != size || fclose(file) != 0)
    fail("cannot be written", path);
}

/* One line for each row of the grid. */
static void print_codes(TF_Tensor *codes) {
  const int32_t *values = TF_TensorData(codes);
  int64_t columns = TF_Dim(codes, TF_NumDims(codes) - 1);
  for (int64_t i = 0; i < TF_TensorElementCount(codes); i++)
    printf("%d%c", values[i], (i + 1) % columns ? ' ' : '\n');
}

int main(int argc, char **argv) {
  if (argc != 2 && argc != 4) fail("use", "savedmodel FOLDER [IN.ppm OUT.ppm]");

  TF_Status *status = TF_NewStatus();
  TF_Graph *graph = TF_NewGraph();
  TF_Buffer *bytes = TF_NewBuffer();
  TF_SessionOptions *options = TF_NewSessionOptions();
  const char *tags[] = {"serve"};
  TF_Session *session = TF_LoadSessionFromSavedModel(options, NULL, argv[1], tags, 1, graph, bytes,
                                                     status);
  check(status);
  Bytes meta_graph = {bytes->data, (const unsigned char *)bytes->data + bytes->length};

  if (argc == 2) {
    print_signatures(meta_graph);
  } else {
    TF_Output input = find_tensor(graph, meta_graph, "reconstruct", INPUTS, "images");
    TF_Output outputs[] = {find_tensor(graph, meta_graph, "reconstruct", OUTPUTS, "images"),
                           find_tensor(graph, meta_graph, "reconstruct", OUTPUTS, "codes")};
    TF_Tensor *picture = read_picture(argv[2]), *answers[2];
    TF_SessionRun(session, NULL, &input, &picture, 1, outputs, answers, 2, NULL, 0, NULL, status);
    check(status);
    write_picture(argv[3], answers[0]);
    print_codes(answers[1]);
    TF_DeleteTensor(picture);
    TF_DeleteTensor(answers[0]);
    TF_DeleteTensor(answers[1]);
  }

  TF_CloseSession(session, status);
  TF_DeleteSession(session, status);
  TF_DeleteSessionOptions(options);
  TF_DeleteBuffer(bytes);
  TF_DeleteGraph(graph);
  TF_DeleteStatus(status);
  return 0;
}
