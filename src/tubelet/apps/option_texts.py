"""Help texts of options that several commands have."""

MODEL_HELP = (
    "A name that `tubelet list models` shows, a .safetensors file or the folder of a training run (its best weights)."
)
THRESHOLD_HELP = "Leave out objects whose score is lower."
VIEWS_HELP = "Look at N sizes and average (models of queries; 4 as in the IFR paper)."
TOP_HELP = "For benchmarks: the N best (object, class) pairs, whatever their scores."
DISTINCT_HELP = "Show each object once: leave out those that overlap a better one by more (IoU, e.g. 0.5)."
UNKNOWN_HELP = "Name objects 'unknown' whose score is lower, in place of a doubtful class."
CUTS_HELP = "Take the video for one shot: objects go on through scene cuts."
DEVICE_HELP = "auto (CUDA, Apple GPU, else CPU), cpu, cuda, cuda:N or mps."
RESULTS_HELP = (
    "json: predictions.json at the end; jsonl: predictions.jsonl, a line per frame as soon as it is finished; "
    "auto: jsonl from 10,000 frames on."
)
ENGINE_HELP = "What computes the network: auto (the fastest that is installed and agrees), torch, onnx or openvino."
INPUT_SIZE_HELP = (
    "Look for objects in frames of the area of N x N pixels: 640 finds smaller ones than the model's 416, in more time."
)
OVERLAY_HELP = (
    "What is drawn: masks, outlines, boxes, labels, scores, trails, opacity, crowd, blur; e.g. boxes=true trails=2."
)
