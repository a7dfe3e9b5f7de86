/**
 * What is on the prototypes of cache handles for the layers below and above them, and not for users. Where TypeScript
 * shows it, it is marked as internal there; a test compares the two.
 */
export const CACHE_INTERNAL = [
  'allocAgain allocAll allocBulkSlow allocCachedOn allocDirect allocFromSlab allocFrozen allocIfTopIsOn',
  'allocLocked allocNolock allocOp allocRequested allocRest allocSlow assertAlive assertAllocated',
  'assertFreeable assertLent barnHasRoom barnTakesFull becomesSpare begin beginNolock borrow borrowFilled',
  'borrowOversize checkZero clearMark count detach detachPcs detachRcu detachRcuSheaf discard endLoans',
  'endNolock fillExactly fillSheaf finish flushAndFreeSheaf flushArray flushDetached flushDetachedPcs',
  'flushMain flushMainInstead flushOwn flushPrefilled flushSheaf flushSpareAndInstall flushThisCpu',
  'flushThrough fold forEachCached forgetDetachedPcs freeAfterGracePeriod freeAgain freeAll',
  'allocRequested freesSingly freeBulkAfterGracePeriod freeBulkSlow freeBulkUndo freeListed freeNolock freeOp freeOther freePastLayer',
  'freeSlow freeToSlab getEmptyMain getEmptyMainNolock getFullMain getFullMainNolock giveUp half handOut',
  'holdForTurn insistOnRest installEmptySheaf installFullSheaf installRcuSheaf isLocal isMarked isOurMark',
  'isOwn learnCapacity learnSizes letGo link lockForBulk lockForRcu lockForTurn mainCounters makeRoom',
  'markOf newSheaf noObject noSheaf passBy popBulk popMain popNolock popObject pushBulk pushMain',
  'pushNolock pushRcu pushRcuNolock putIntoArray rcuSheafWaits rcuSheavesWait rebase recycleAllRcuSheaves',
  'recycleRcuSheaf recycleRcuSheaves refillArray refillSheaf refillSpareAndInstall refillThrough',
  'refusesZero release releaseEarly releaseIfIdle releaseIfRequested relock remoteToFront replaceEmptyMain',
  'replaceFullMain reported returnToBarn serve setMain sheafClass slabIsOn submitDetachedRcu submitRcuSheaf takeBack',
  'takeBackAll takeBackSheaf takeFromArray takeScratch takeSheaf topUp trylockPcs undoBulk unlink',
  'unlockAfterBulk unlockPcs whoseIs zero zeroAll',
].join(' ');
