"""The mask transformer family: Mask2Former-VIS, and IFR with its recurrent decoder."""
