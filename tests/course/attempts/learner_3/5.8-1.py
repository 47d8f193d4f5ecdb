    def grow(self) -> list[Row]:
        for sequence in list(self.running):
            if sequence.status is not Status.RUNNING:
                continue  # gave way to an older one
            if len(sequence) > self.longest:
                self.finish(sequence, "out_of_pages")
                self.outgrown.append(sequence)
                continue
            while sequence.status is Status.RUNNING and not self.page_table.reserve(sequence.slot, len(sequence)):
                self.preempt(self.running[-1])
        return [Row(sequence, len(sequence) - 1, 1) for sequence in self.running]
